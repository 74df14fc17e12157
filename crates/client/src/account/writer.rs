//! What a write-only device is given when it is enrolled, by the root key or by a full device.

use candor_vault::EpochKey;
use candor_vault::secret::SecretBytes;
use candor_wire::VaultId;
use candor_wire::chain::AccountView;
use candor_wire::sign::SecretKey;
use candor_wire::statement::Body;
use zeroize::Zeroizing;

use super::labels::watch_keys;
use super::{AccountError, Surroundings, append_as};
use crate::api::Api;
use crate::chain::Chain;
use crate::epochs::{self, EpochError, Recipients, ScopeKeys};
use crate::keystore::{KeyStore, WriterKeys};
use crate::memory::Memory;

/// Vaults that a write-only device is given: one for each of its backup sets, since it can make none itself.
pub const WRITER_VAULTS: usize = 8;

/// What a write-only device has instead of keys, and what has to be stated before it has it.
pub(crate) struct Given {
    /// First epochs of its vaults. Their keys are drawn, wrapped to the full devices and the recovery key, and
    /// forgotten.
    pub(crate) bodies: Vec<Body>,
    /// The vaults, with the keys of their chunk ids.
    pub(crate) vaults: Vec<(VaultId, SecretBytes)>,
    /// The account's watch keys.
    pub(crate) watch: Zeroizing<Vec<u8>>,
}

/// Draws the vaults of a write-only device.
pub(crate) fn draw_vaults(
    view: &AccountView,
    first: &EpochKey,
    surroundings: Surroundings<'_>,
) -> Result<Given, AccountError> {
    let recipients = Recipients::of(view);
    let (mut bodies, mut vaults) = (Vec::new(), Vec::new());
    for _ in 0..WRITER_VAULTS {
        let mut id = [0; VaultId::BYTES];
        surroundings.entropy.fill(&mut id)?;
        let mut chunk_ids = Zeroizing::new([0; 32]);
        surroundings.entropy.fill(chunk_ids.as_mut())?;
        let vault = VaultId::from_bytes(id);
        let (record, _) = epochs::begin(
            view.account(),
            Some(vault),
            &recipients,
            surroundings.entropy,
        )?;
        bodies.push(Body::Epoch(Box::new(record)));
        vaults.push((vault, SecretBytes::copy_of(&chunk_ids)));
    }
    Ok(Given {
        bodies,
        vaults,
        watch: watch_keys(first),
    })
}

/// Gives a write-only device the watch keys, and vaults whose first epochs the root states.
pub(super) async fn give_vaults(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &mut KeyStore,
    root: &SecretKey,
    account_keys: &ScopeKeys,
    surroundings: Surroundings<'_>,
) -> Result<(), AccountError> {
    let first = account_keys
        .get(1)
        .ok_or(AccountError::Epoch(EpochError::Rejected))?;
    let given = draw_vaults(chain.view(), first, surroundings)?;
    keys.set_writer(WriterKeys::new(given.watch, given.vaults));
    append_as(
        api,
        chain,
        memory,
        keys,
        None,
        root,
        given.bodies,
        surroundings,
    )
    .await
}
