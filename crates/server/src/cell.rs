//! A cell as a value: made, opened, served, and inviting people.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use candor_log::note::{KeyKind, VerifierKey};
use candor_store::{CreateOutcome, RecordsError, SecretHash, Store, StoreError};
use candor_wire::api::{API_VERSION, CellDescription};
use candor_wire::cbor;
use candor_wire::cell::{
    CELL_FORMAT_VERSION, CELL_KEYS_MAX, CellError, CellKeyring, CellKeys, Invitation,
    InvitationRight, SignedCellKeys, cell_id, log_origin,
};
use candor_wire::ids::CellId;
use candor_wire::sign::Ed25519Public;
use candor_wire::time::DAY_MS;

use crate::clock::{Clock, SystemClock};
use crate::config::{CellConfig, ConfigError};
use crate::keys::{self, CellKeyFiles, KeyError};
use crate::listener::{self, Listening, ServeError};
use crate::log::Log;
use crate::random::{self, NoRandomness};
use crate::re_anchor::{Anew, begun_anew, queue_what_was_before_the_log};
use crate::shared::{Ports, Shared};
use crate::transparency::Signer;
use crate::transparency::signer::SignerError;
use crate::{routes, sys};

/// The settings, within a cell's directory. Written last: a directory without it is no cell yet.
pub(crate) const CONFIG_FILE: &str = "cell.toml";

/// The keys, within a cell's directory.
pub(crate) const KEYS_DIRECTORY: &str = "keys";

/// What the log's signer remembers, within a cell's directory. Never restored from a backup.
pub(crate) const SIGNER_FILE: &str = "keys/log-signer";

/// Database and objects, within a cell's directory.
pub(crate) const STORE_DIRECTORY: &str = "store";

/// Name of the stored value with all generations of the cell's signed keys.
const KEYS_VALUE: &str = "cell-keys";

/// When a log begins anew, serials of the cell's keys go on at the next multiple of this, and at least at
/// this for each log before: the ones in between may have been given to generations that the backup does
/// not know.
const SERIALS_SKIPPED: u32 = 1000;

/// How long an invitation is good, in milliseconds. A week: time to read one's mail, and no bearer
/// secret lies around for longer.
const INVITATION_MAX_MS: i64 = 7 * DAY_MS;

/// What is decided when a cell is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitParams {
    /// The jurisdiction in which the cell keeps data. It can never change.
    pub region: String,
    /// The party that runs the cell.
    pub controller: String,
    /// Where devices reach it. With port 0 a free port is chosen now, and kept.
    pub listen: SocketAddr,
    /// What invitations say instead: `host:port`. Empty: the address of `listen`.
    pub public_addresses: Vec<String>,
}

/// How to open a cell.
pub struct CellOptions {
    /// The settings; `None` for those in the cell's directory.
    pub config: Option<CellConfig>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the log's lines go.
    pub log: Log,
}

impl Default for CellOptions {
    fn default() -> Self {
        Self {
            config: None,
            clock: Arc::new(SystemClock),
            log: Log::silent(),
        }
    }
}

/// Why a cell could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already. Nothing was changed.
    #[error("{} holds a cell already", directory.display())]
    AlreadyThere {
        /// The directory.
        directory: PathBuf,
    },
    /// A name or address that no cell can have.
    #[error("no cell can have these settings")]
    Config(#[source] ConfigError),
    /// The directory or a file in it could not be written.
    #[error("{} cannot be written", path.display())]
    File {
        /// The directory or file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// No free port was found at the address.
    #[error("no port is free at {address}")]
    NoPort {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The new cell could not be opened.
    #[error("the new cell could not be opened")]
    Open(#[source] OpenError),
}

/// Why a cell could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("{} holds no cell", directory.display())]
    NoCell {
        /// The directory.
        directory: PathBuf,
    },
    /// The settings cannot be used.
    #[error("the cell's settings cannot be used")]
    Config(#[source] ConfigError),
    /// The keys cannot be used.
    #[error("the cell's keys cannot be used")]
    Keys(#[source] KeyError),
    /// Another process uses the cell.
    #[error("the cell in {} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The store failed.
    #[error("the cell's store cannot be opened")]
    Store(#[source] StoreError),
    /// A record of the cell about itself failed.
    #[error("the cell's own records cannot be used")]
    Records(#[source] RecordsError),
    /// The stored description of the cell does not fit its root key.
    #[error("the cell's stored keys do not fit its root key")]
    Identity(#[source] Option<CellError>),
    /// The memory of the log's signer cannot be used.
    #[error("the memory of the log's signer cannot be used")]
    LogSigner(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cell is older than its log, and its statements could not be put into it.
    #[error("the statements from before this cell had a log could not be put into it")]
    BeforeTheLog(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A new log was begun and not finished.
    #[error("a new log of this cell was begun and not finished")]
    BeginningAnew,
    /// The settings changed more often than a cell's keys have generations. Nothing was changed.
    #[error("the cell's keys have had {CELL_KEYS_MAX} generations, and cannot have more")]
    GenerationsUsedUp,
    /// The settings name another region than the one that people consented to.
    #[error("this cell was made for the region `{signed}`; a cell never changes its region")]
    Region {
        /// The region in the cell's signed keys.
        signed: String,
    },
}

/// Why an invitation could not be made. None was.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// No secret could be made.
    #[error("the invitation's secret could not be made")]
    Randomness(#[source] NoRandomness),
    /// It could not be stored.
    #[error("the invitation could not be stored")]
    Records(#[source] RecordsError),
}

/// An open cell. Cheap to clone; the last clone that is dropped closes the store.
#[derive(Clone)]
pub struct Cell {
    shared: Arc<Shared>,
}

impl Cell {
    /// Makes a cell in `directory`: keys, settings, database. Everything is durable when this
    /// returns. An attempt that was cut off is continued by the next one.
    ///
    /// # Errors
    /// [`InitError`]; [`InitError::AlreadyThere`] if there is a cell.
    pub async fn init(directory: &Path, params: &InitParams) -> Result<(), InitError> {
        let config_path = directory.join(CONFIG_FILE);
        let fault = |path: &Path, source| InitError::File {
            path: path.to_path_buf(),
            source,
        };
        if config_path
            .try_exists()
            .map_err(|source| fault(&config_path, source))?
        {
            return Err(InitError::AlreadyThere {
                directory: directory.to_path_buf(),
            });
        }
        // The texts are checked before anything is made.
        let mut config = config_of(params).map_err(InitError::Config)?;
        config.listen =
            listener::choose_port(params.listen).map_err(|source| InitError::NoPort {
                address: params.listen,
                source,
            })?;
        for path in [directory.to_path_buf(), directory.join(KEYS_DIRECTORY)] {
            sys::create_private_directory(&path).map_err(|source| fault(&path, source))?;
        }
        let keys = CellKeyFiles::create(&directory.join(KEYS_DIRECTORY))
            .map_err(|source| InitError::Open(OpenError::Keys(source)))?;
        let memory = directory.join(SIGNER_FILE);
        let origin = log_origin(&cell_id(&keys.root.secret().public()));
        Signer::create_memory(&memory, &origin)
            .map_err(|source| InitError::Open(OpenError::LogSigner(source.into())))?;
        let options = CellOptions {
            config: Some(config.clone()),
            ..CellOptions::default()
        };
        Self::with_store(directory, config.clone(), options, Ports::of)
            .await
            .map_err(InitError::Open)?;
        let text = config_text(&config);
        sys::write_private_file(&config_path, text.as_bytes())
            .map_err(|source| fault(&config_path, source))
    }

    /// Opens the cell in `directory` with its own settings, the system's clock and no log.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, CellOptions::default()).await
    }

    /// Opens the cell in `directory`. Must run within a tokio runtime. Starts the task that sweeps
    /// away old nonces and lost uploads; it ends with the cell.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::InUse`] if another process has it open.
    pub async fn open_with(directory: &Path, options: CellOptions) -> Result<Self, OpenError> {
        let cell = Self::open_over(directory, options, Ports::of).await?;
        cell.start();
        Ok(cell)
    }

    /// The same over other ports than the store's own, and without what the cell does by itself.
    pub(crate) async fn open_over(
        directory: &Path,
        mut options: CellOptions,
        ports: impl FnOnce(Store) -> Ports,
    ) -> Result<Self, OpenError> {
        let config_path = directory.join(CONFIG_FILE);
        if !config_path.is_file() {
            return Err(OpenError::NoCell {
                directory: directory.to_path_buf(),
            });
        }
        let config = match options.config.take() {
            Some(config) => config,
            None => CellConfig::from_file(&config_path).map_err(OpenError::Config)?,
        };
        Self::with_store(directory, config, options, ports).await
    }

    /// Starts what the cell does by itself. It ends with the cell.
    pub(crate) fn start(&self) {
        crate::housekeeping::start(&self.shared);
        crate::transparency::start(&self.shared);
    }

    async fn with_store(
        directory: &Path,
        config: CellConfig,
        options: CellOptions,
        ports: impl FnOnce(Store) -> Ports,
    ) -> Result<Self, OpenError> {
        let key_files = directory.join(KEYS_DIRECTORY);
        let root = keys::read_root(&key_files).map_err(OpenError::Keys)?;
        let path = directory.join(STORE_DIRECTORY);
        let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
        let store = match opened {
            Ok(Ok(store)) => store,
            Ok(Err(StoreError::InUse { .. })) => {
                return Err(OpenError::InUse {
                    directory: directory.to_path_buf(),
                });
            }
            Ok(Err(source)) => return Err(OpenError::Store(source)),
            Err(_) => return Err(OpenError::Records(RecordsError::Closed)),
        };
        if begun_anew(store.records().as_ref()).await?.is_some() {
            return Err(OpenError::BeginningAnew);
        }
        if let Some(keyring) = stored_keyring(&store, &root.secret().public()).await? {
            fit_to_stored_keys(directory, &keyring)?;
        }
        let keys = CellKeyFiles::read(&key_files).map_err(OpenError::Keys)?;
        let description = description(&store, &keys, &config, options.clock.as_ref(), None).await?;
        let keyring = CellKeyring::verify(&keys.root.secret().public(), &description.keys)
            .map_err(|source| OpenError::Identity(Some(source)))?;
        queue_what_was_before_the_log(&store, options.clock.now())
            .await
            .map_err(|source| OpenError::BeforeTheLog(Box::new(source)))?;
        let signer = signer(directory, &keys, &keyring).map_err(OpenError::LogSigner)?;
        let shared = Shared::new(
            ports(store),
            keys,
            keyring,
            &description,
            config,
            options,
            signer,
        );
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The cell's id.
    pub fn id(&self) -> CellId {
        self.shared.keyring.cell()
    }

    /// The cell's root key, as invitations pin it.
    pub fn root(&self) -> Ed25519Public {
        self.shared.root
    }

    /// The keys that the cell uses, who runs it and where.
    pub fn keys(&self) -> &CellKeys {
        self.shared.keyring.current()
    }

    /// The settings in use.
    pub fn config(&self) -> &CellConfig {
        &self.shared.config
    }

    /// The cell's HTTP interface, for a caller in the same process. Every request is checked like
    /// one from the network.
    pub fn service(&self) -> Router {
        routes::router(&self.shared)
    }

    /// Takes the listening addresses: TLS 1.3 for devices, and plain HTTP on loopback for health and
    /// metrics. Connections are accepted once [`Listening::run`] runs.
    ///
    /// # Errors
    /// [`ServeError`] if an address is taken.
    pub async fn bind(&self) -> Result<Listening, ServeError> {
        listener::bind(&self.shared).await
    }

    /// [`Self::bind`] and [`Listening::run`]: serves until `shutdown` is ready, then lets running
    /// requests finish.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        self.bind().await?.run(shutdown).await;
        Ok(())
    }

    /// An invitation with a right to open one account within a week. The cell keeps only a hash of
    /// the right; it is stored durably before this returns.
    ///
    /// # Errors
    /// [`InviteError`].
    pub async fn invite(&self) -> Result<Invitation, InviteError> {
        let right = InvitationRight(random::bytes().map_err(InviteError::Randomness)?);
        let now = self.shared.clock.now();
        let stored = candor_store::Invitation {
            secret: SecretHash(right.stored_hash()),
            made_at: now,
            expires_at: now.plus_ms(INVITATION_MAX_MS),
            quota_bytes: self.shared.config.quota_bytes,
        };
        match self
            .shared
            .records
            .create_invitation(stored)
            .await
            .map_err(InviteError::Records)?
        {
            // 128 random bits never repeat; a generator that repeats is one that cannot be used.
            CreateOutcome::AlreadyThere => Err(InviteError::Randomness(NoRandomness)),
            CreateOutcome::Created => Ok(Invitation {
                right: Some(right),
                ..self.address_card()
            }),
        }
    }

    /// An invitation without a right: what a device that has an account pins.
    pub fn address_card(&self) -> Invitation {
        Invitation {
            version: CELL_FORMAT_VERSION,
            root: self.root(),
            addresses: self.shared.config.invitation_addresses(),
            right: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The key of the log of the cell in `directory`, in C2SP's text form: for policies, and for witnesses.
/// Reads the keys and the signer's memory alone, so the cell may be running.
///
/// # Errors
/// [`OpenError::NoCell`], [`OpenError::Keys`] and [`OpenError::LogSigner`], the last one also when the
/// memory is gone: only it says, without the database, which of the cell's logs is the present one.
pub fn log_vkey_of(directory: &Path) -> Result<String, OpenError> {
    if !directory.join(CONFIG_FILE).is_file() {
        return Err(OpenError::NoCell {
            directory: directory.to_path_buf(),
        });
    }
    let keys = CellKeyFiles::read(&directory.join(KEYS_DIRECTORY)).map_err(OpenError::Keys)?;
    let fault = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::LogSigner(source);
    let memory = Signer::memory_of(&directory.join(SIGNER_FILE));
    let memory = memory.map_err(|source| fault(source.into()))?;
    let (origin, _) = memory.ok_or_else(|| fault(SignerError::Missing.into()))?;
    let key = VerifierKey::new(&origin, KeyKind::Log, keys.log.secret().public())
        .map_err(|source| fault(source.into()))?;
    Ok(key.to_string())
}

/// What is settled before a generation of keys is signed. A cell that never had a log gets a key and a
/// memory for one. A memory of another log than the stored keys name means that the database was put back:
/// no keys are signed for that.
fn fit_to_stored_keys(directory: &Path, keyring: &CellKeyring) -> Result<(), OpenError> {
    let memory = directory.join(SIGNER_FILE);
    let fault = |source: SignerError| OpenError::LogSigner(source.into());
    let origin = keyring.current().log_origin();
    let remembered = Signer::memory_of(&memory).map_err(fault)?;
    if remembered.is_some_and(|(remembered, _)| remembered != origin) {
        return Err(fault(SignerError::OtherLog));
    }
    if keyring.current().log.is_some() {
        return Ok(());
    }
    keys::create_log_key(&directory.join(KEYS_DIRECTORY)).map_err(OpenError::Keys)?;
    Signer::create_memory(&memory, &origin).map_err(fault)
}

/// The log's signer, with its memory if it has one.
fn signer(
    directory: &Path,
    keys: &CellKeyFiles,
    keyring: &CellKeyring,
) -> Result<Signer, Box<dyn std::error::Error + Send + Sync>> {
    let secret = keys.log.secret();
    let origin = keyring.current().log_origin();
    let key = VerifierKey::new(&origin, KeyKind::Log, secret.public())?;
    Ok(Signer::open(&directory.join(SIGNER_FILE), key, secret)?)
}

fn config_of(params: &InitParams) -> Result<CellConfig, ConfigError> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut config = CellConfig::from_text(&format!(
        "region = {}\ncontroller = {}\n",
        quoted(&params.region),
        quoted(&params.controller)
    ))?;
    config.listen = params.listen;
    config.public_addresses.clone_from(&params.public_addresses);
    let text = config_text(&config);
    CellConfig::from_text(&text)
}

/// Only what was decided for this cell; the rest stays with the compiled-in settings.
fn config_text(config: &CellConfig) -> String {
    let own: toml::Table = [
        ("region", toml::Value::String(config.region.clone())),
        ("controller", toml::Value::String(config.controller.clone())),
        ("listen", toml::Value::String(config.listen.to_string())),
        (
            "public_addresses",
            toml::Value::Array(
                config
                    .public_addresses
                    .iter()
                    .cloned()
                    .map(toml::Value::String)
                    .collect(),
            ),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    format!(
        "# The settings of this cell. What is not here is as compiled in; `candor server check-config` checks.\n{own}"
    )
}

/// The stored generations of the cell's keys, checked; `None` before the first.
pub(crate) async fn stored_keyring(
    store: &Store,
    root: &Ed25519Public,
) -> Result<Option<CellKeyring>, OpenError> {
    let stored = stored_description(store).await?;
    if stored.keys.is_empty() {
        return Ok(None);
    }
    let keyring = CellKeyring::verify(root, &stored.keys);
    keyring
        .map(Some)
        .map_err(|source| OpenError::Identity(Some(source)))
}

/// The stored generations of the cell's keys.
async fn stored_description(store: &Store) -> Result<CellDescription, OpenError> {
    let stored = store.records().cell_value(KEYS_VALUE).await;
    let stored = stored.map_err(OpenError::Records)?;
    match stored {
        Some(bytes) => cbor::decode(&bytes).map_err(|_| OpenError::Identity(None)),
        None => Ok(CellDescription {
            version: API_VERSION,
            keys: Vec::new(),
        }),
    }
}

/// The same, with a new one if the settings changed what it says.
pub(crate) async fn description(
    store: &Store,
    keys: &CellKeyFiles,
    config: &CellConfig,
    clock: &dyn Clock,
    anew: Option<&Anew>,
) -> Result<CellDescription, OpenError> {
    let records = store.records();
    let root = keys.root.secret();
    let mut description = stored_description(store).await?;
    let (mut serial, mut log_number, mut log_before) = (1, None, None);
    if !description.keys.is_empty() {
        let keyring = CellKeyring::verify(&root.public(), &description.keys)
            .map_err(|source| OpenError::Identity(Some(source)))?;
        let current = keyring.current();
        if current.region != config.region {
            return Err(OpenError::Region {
                signed: current.region.clone(),
            });
        }
        let same = anew.is_none_or(|anew| current.log_number == Some(anew.number))
            && current.controller == config.controller
            && current.retention_days == config.retention_days
            && current.acknowledgement == keys.acknowledgement.secret().public()
            && current.log == Some(keys.log.secret().public());
        if same {
            return Ok(description);
        }
        serial = current.serial + 1;
        (log_number, log_before) = (current.log_number, current.log_before.clone());
    }
    if let Some(anew) = anew {
        // Also beyond those of logs that began after the backup was made, and are not in it.
        let skipped = SERIALS_SKIPPED.saturating_mul(anew.number.saturating_sub(1));
        serial = serial.next_multiple_of(SERIALS_SKIPPED).max(skipped);
        (log_number, log_before) = (Some(anew.number), anew.before.clone());
    }
    if description.keys.len() >= CELL_KEYS_MAX {
        return Err(OpenError::GenerationsUsedUp);
    }
    let new = CellKeys {
        version: CELL_FORMAT_VERSION,
        cell: cell_id(&root.public()),
        serial,
        acknowledgement: keys.acknowledgement.secret().public(),
        from: clock.now(),
        controller: config.controller.clone(),
        region: config.region.clone(),
        retention_days: config.retention_days,
        log: Some(keys.log.secret().public()),
        log_number,
        log_before,
    };
    description.keys.push(SignedCellKeys::sign(&new, &root));
    let bytes = cbor::encode(&description).into();
    records
        .set_cell_value(KEYS_VALUE, bytes)
        .await
        .map_err(OpenError::Records)?;
    Ok(description)
}
