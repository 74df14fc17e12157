//! The command line of the device's commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

/// How a new key store is protected.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KeyArgs {
    /// Keep the keys on this device without a passphrase: whoever can read your files can use them
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) unprotected_keys: bool,
}

/// `candor up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Folders and files to back up
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Say yes to the consent text, which is printed all the same
    #[arg(long)]
    pub(crate) yes: bool,
    /// Exit when the backup is done
    #[arg(long)]
    pub(crate) once: bool,
    /// Do not open a browser; the pages are there all the same
    #[arg(long)]
    pub(crate) no_open: bool,
    /// Where to write the recovery phrase of a new account; the file must not exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_file: Option<PathBuf>,
    /// How the keys are protected.
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

/// The role of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// May do everything
    Full,
    /// May only add to backups: it holds no key that reads them, and deletes nothing
    WriteOnly,
}

/// `candor account …`
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Open an account at a cell that you were invited to
    #[command(
        after_help = "Example:\n  candor account create alice --cell @invitation.txt --recovery-file phrase.txt"
    )]
    Create(AccountCreate),
    /// Get your account back on this device with the recovery phrase
    #[command(
        after_help = "Example:\n  candor account recover --cell @invitation.txt --recovery-file phrase.txt"
    )]
    Recover(AccountRecover),
    /// Show the account and this device
    #[command(after_help = "Example:\n  candor account show --json")]
    Show,
    /// Confirm that you have the recovery phrase: type it, or name the file in which you keep it
    #[command(
        after_help = "Example:\n  candor account confirm --recovery-file /media/usb/phrase.txt"
    )]
    Confirm {
        /// File with the 24 words. Without it, they are asked for
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        recovery_file: Option<PathBuf>,
    },
    /// Have the account and everything of it erased at its cell, after a week in which you can take it back
    #[command(after_help = "Example:\n  candor account delete\n  candor account delete --cancel")]
    Delete {
        /// Delete without asking
        #[arg(long, conflicts_with = "cancel")]
        yes: bool,
        /// Take it back
        #[arg(long)]
        cancel: bool,
    },
    /// See what a cell lost that was restored from a backup, and accept it or not
    #[command(after_help = "Example:\n  candor account re-anchor")]
    ReAnchor {
        /// Accept what is shown, without asking
        #[arg(long)]
        yes: bool,
    },
}

/// `candor account create`
#[derive(Debug, Args)]
pub(crate) struct AccountCreate {
    /// What you call the account; stays on your devices
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The invitation, or @FILE to read it from a file
    #[arg(long, value_name = "INVITATION", value_hint = ValueHint::FilePath)]
    pub(crate) cell: String,
    /// What this device may do
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) role: Role,
    /// Where to write the recovery phrase; the file must not exist. Without it, the phrase is shown on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_file: Option<PathBuf>,
    /// How the keys are protected.
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

/// `candor account recover`
#[derive(Debug, Args)]
pub(crate) struct AccountRecover {
    /// The invitation of the account's cell, or @FILE to read it from a file. A device that was in the account before knows it
    #[arg(long, value_name = "INVITATION", value_hint = ValueHint::FilePath)]
    pub(crate) cell: Option<String>,
    /// What you call the account; stays on this device [default: what it was called here before, or recovered]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What this device may do
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) role: Role,
    /// Take every other device out of the account first: when one was stolen, and there is no other to revoke it with
    #[arg(long)]
    pub(crate) revoke_others: bool,
    /// File with the 24 words. Without it, they are asked for
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_file: Option<PathBuf>,
    /// How the keys are protected.
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

/// `candor device …`
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the devices of your account, as the cell's copy of the chain has them
    #[command(after_help = "Example:\n  candor device list --json")]
    List,
    /// Take a new device into your account: shows a code, waits for the device that uses it, and asks you
    #[command(
        after_help = "Example:\n  candor device link\n\nOn the new device: candor device join, and the code. Both show six digits; say yes only if they are the same."
    )]
    Link {
        /// What the new device may do
        #[arg(long, value_enum, default_value = "full")]
        role: Role,
        /// Say yes to whichever device uses the code, without comparing the digits
        #[arg(long)]
        yes: bool,
    },
    /// Join an account with the code that one of its devices shows
    #[command(
        after_help = "Example:\n  candor device join candor-link1:qAEBAqQAAQFYIB…\n  candor device join @code.txt --unprotected-keys"
    )]
    Join(JoinArgs),
    /// Take a device out of your account, because it was lost, sold or stolen
    #[command(
        after_help = "Example:\n  candor device revoke old-laptop\n\nRun it again if it was interrupted: it goes on where it stopped."
    )]
    Revoke {
        /// Its name or id, as `candor device list` shows it, or the beginning of the id
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Revoke without asking
        #[arg(long)]
        yes: bool,
    },
}

/// `candor device join`
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The code, or @FILE to read it from a file. Without it, it is asked for
    #[arg(value_name = "CODE", value_hint = ValueHint::FilePath)]
    pub(crate) code: Option<String>,
    /// What you call the account; stays on this device
    #[arg(long, value_name = "NAME", default_value = "linked")]
    pub(crate) name: String,
    /// How the keys are protected.
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

/// What can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Sealed copies of the folders that you choose
    Backup,
    /// Folders that are the same on your devices
    Sync,
    /// Not available in this version
    Messages,
    /// Not available in this version
    Relay,
    /// Not available in this version
    Recovery,
}

impl Service {
    /// Its name, as in every text.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Sync => "sync",
            Self::Messages => "messages",
            Self::Relay => "relay",
            Self::Recovery => "recovery",
        }
    }
}

/// `candor consent …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConsentCommand {
    /// List the consents of this device; sends nothing
    #[command(after_help = "Example:\n  candor consent list")]
    List,
    /// Show what a service would send, where to, for how long, and how to stop it; sends nothing
    #[command(after_help = "Example:\n  candor consent show backup")]
    Show {
        /// The service.
        service: Service,
    },
    /// Read what would be sent, and say yes or no
    #[command(after_help = "Example:\n  candor consent on backup")]
    On {
        /// The service.
        service: Service,
        /// Say yes to the text, which is printed all the same
        #[arg(long)]
        yes: bool,
    },
    /// Withdraw, at once and without a question
    #[command(
        after_help = "Example:\n  candor consent off backup\n  candor consent off backup documents --erase"
    )]
    Off {
        /// The service.
        service: Service,
        /// One backup set or folder; without it, all of them, on all devices of the account.
        name: Option<String>,
        /// Keep what was stored (the default), also if you asked for it to be erased and its time is not over
        #[arg(long, conflicts_with = "erase")]
        keep: bool,
        /// Have what was stored erased at the cell, once its retention window is over
        #[arg(long)]
        erase: bool,
    },
    /// Take back one erasure, as long as the cell has not begun with it; no consent changes
    #[command(after_help = "Example:\n  candor consent keep 3f9a1c")]
    Keep {
        /// The id of the erasure, as `candor status` shows it, or the beginning of it
        #[arg(value_name = "ID")]
        erasure: String,
    },
    /// Show all consents that the account ever gave or withdrew
    #[command(after_help = "Example:\n  candor consent history --json")]
    History,
    /// Make a file that proves a consent, or an erasure, to anybody, without a network and without a cell
    #[command(
        after_help = "Example:\n  candor consent receipt 3f9a1c -o backup.receipt\n  candor consent receipt 3f9a1c --format json-ld"
    )]
    Receipt(ReceiptArgs),
    /// Check a receipt; needs nothing but the file
    #[command(
        after_help = "Example:\n  candor consent verify backup.receipt\n  candor consent verify backup.receipt --policy family.policy\n\nExit codes: 0 valid, 4 not valid, 2 the file or the policy cannot be read."
    )]
    Verify {
        /// The receipt
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Which logs you know and how many witnesses you ask for, as a C2SP tlog-policy file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        policy: Option<PathBuf>,
    },
}

/// `candor consent receipt`
#[derive(Debug, Args)]
pub(crate) struct ReceiptArgs {
    /// The id of the consent or erasure, as `candor consent history --json` shows it, or the beginning of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The file to write; must not exist. Without it, the receipt is printed
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// The form
    #[arg(long, value_enum, default_value = "candor")]
    pub(crate) format: ReceiptFormat,
}

/// The form of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReceiptFormat {
    /// Signed, for `candor consent verify`
    Candor,
    /// Derived from it and not signed: ISO/IEC TS 27560 in the W3C's Data Privacy Vocabulary
    JsonLd,
}

/// `candor sync …`
#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Keep a folder in step with your other devices; asks first
    #[command(
        after_help = "Example:\n  candor sync add ~/Documents\n\nOn another device of yours: candor sync join Documents ~/Documents"
    )]
    Add {
        /// The folder.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// What it is called on all devices; by default like the folder
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What this device leaves out, in the syntax of .gitignore; may be given more than once
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
        /// Say yes to the consent text, which is printed all the same
        #[arg(long)]
        yes: bool,
    },
    /// Have a folder here that another device of yours keeps in step; asks first
    #[command(
        after_help = "Example:\n  candor sync join Documents ~/Documents\n  candor sync join Photos ~/Photos --exclude '/videos/'\n\nWhat is in DIR already is merged: what differs is kept twice."
    )]
    Join {
        /// What it is called.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it shall be here; made if it is not there.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// What this device leaves out, in the syntax of .gitignore; may be given more than once
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
        /// Say yes to the consent text, which is printed all the same
        #[arg(long)]
        yes: bool,
    },
    /// Bring folders into step once; while `candor up` runs, it does so by itself
    #[command(after_help = "Example:\n  candor sync run\n  candor sync run Documents")]
    Run {
        /// Folders; without any, all that are on and not paused.
        #[arg(value_name = "NAME")]
        folders: Vec<String>,
    },
    /// Leave a folder as it is for a while
    #[command(after_help = "Example:\n  candor sync pause Documents")]
    Pause {
        /// The folder.
        #[arg(value_name = "NAME")]
        folder: String,
    },
    /// Let a paused folder go on
    #[command(after_help = "Example:\n  candor sync resume Documents")]
    Resume {
        /// The folder.
        #[arg(value_name = "NAME")]
        folder: String,
    },
    /// Show the folders and whether they are in step; sends nothing
    #[command(after_help = "Example:\n  candor sync status --json")]
    Status,
    /// List files that two devices changed at once and that were kept twice; sends nothing
    #[command(after_help = "Example:\n  candor sync conflicts")]
    Conflicts,
    /// List the versions of a file or folder, removed ones included
    #[command(after_help = "Example:\n  candor sync versions ~/Documents/report.odt")]
    Versions {
        /// Where it is, or was.
        #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
        path: PathBuf,
    },
    /// Let go of what only superfluous versions needed; `candor up` does so by itself now and then
    ///
    /// The newest versions stay, and of older ones one of each hour, day and month. The cell deletes what is let go
    /// of after its retention window.
    #[command(after_help = "Example:\n  candor sync prune\n  candor sync prune Documents")]
    Prune {
        /// Folders; without any, all that are on and not paused.
        #[arg(value_name = "NAME")]
        folders: Vec<String>,
        /// How much of what is stored may be unneeded before the rest is stored anew
        #[arg(long, value_name = "PERCENT", default_value_t = candor_client::MAX_UNUSED_PERCENT, value_parser = clap::value_parser!(u8).range(0..=100))]
        max_unused: u8,
    },
    /// Have a version back; what is there now stays a version of its own
    #[command(
        after_help = "Example:\n  candor sync restore ~/Documents/report.odt@3f2a\n  candor sync restore ~/Documents/old@3f2a --to /tmp/old"
    )]
    Restore {
        /// Where it is, or was, and the beginning of the version that `candor sync versions` shows.
        #[arg(value_name = "PATH@VERSION")]
        what: std::ffi::OsString,
        /// A folder to restore into, instead of its place
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        to: Option<PathBuf>,
    },
}

/// `candor service …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Write the file that has your service manager run `candor up`; starts nothing
    #[command(
        after_help = "Example:\n  candor service install\n  systemctl --user daemon-reload && systemctl --user enable --now candor"
    )]
    Install(ServiceArgs),
    /// Remove that file
    #[command(after_help = "Example:\n  candor service uninstall")]
    Uninstall {
        /// The service manager; by default this system's
        #[arg(long, value_enum, value_name = "MANAGER")]
        manager: Option<ServiceManager>,
    },
}

/// `candor service install`
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The service manager; by default this system's
    #[arg(long, value_enum, value_name = "MANAGER")]
    pub(crate) manager: Option<ServiceManager>,
    /// Print the file instead of writing it
    #[arg(long)]
    pub(crate) print: bool,
}

/// What starts programs with a person's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceManager {
    /// A user unit
    Systemd,
    /// A launch agent
    Launchd,
}

impl Default for ServiceManager {
    fn default() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else {
            Self::Systemd
        }
    }
}

/// `candor backup …`
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Name folders and files to back up together; sends nothing
    #[command(
        after_help = "Example:\n  candor backup add ~/Documents --name documents --exclude '*.iso'"
    )]
    Add {
        /// Folders and files.
        #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// Name of the set; by default that of the first path
        #[arg(long, value_name = "SET")]
        name: Option<String>,
        /// What to leave out, in the syntax of .gitignore; may be given more than once
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
    },
    /// Back up now; safe to call from cron or a systemd timer at any time
    #[command(after_help = "Example:\n  candor backup run documents\n  candor backup run --all")]
    Run {
        /// Sets; without any, all of them.
        #[arg(value_name = "SET", conflicts_with = "all")]
        sets: Vec<String>,
        /// All sets
        #[arg(long)]
        all: bool,
    },
    /// List the backup sets; sends nothing
    #[command(after_help = "Example:\n  candor backup list")]
    List,
    /// List the snapshots of a set
    #[command(after_help = "Example:\n  candor backup snapshots documents")]
    Snapshots {
        /// The set; all of the account's without it
        set: Option<String>,
        /// Those that were forgotten and can still be brought back
        #[arg(long, conflicts_with = "set")]
        forgotten: bool,
    },
    /// List what is in a snapshot; without PATH, its top
    #[command(
        after_help = "Example:\n  candor backup ls latest\n  candor backup ls documents:latest Documents/letters"
    )]
    Ls {
        /// An id, the beginning of one, `latest` (of all sets), or `SET:latest` (of one).
        snapshot: String,
        /// A folder in the snapshot.
        path: Option<PathBuf>,
        /// Also everything below it
        #[arg(long, short)]
        recursive: bool,
    },
    /// Find files by name in all snapshots
    #[command(after_help = "Example:\n  candor backup find '*.odt'")]
    Find {
        /// What to look for; with a slash in it, whole paths are compared.
        glob: String,
    },
    /// Show what differs between two snapshots
    #[command(after_help = "Example:\n  candor backup diff 3f9a1c latest")]
    Diff {
        /// The older one.
        a: String,
        /// The newer one.
        b: String,
    },
    /// Restore a snapshot, or some paths of it, into a folder
    #[command(
        after_help = "Example:\n  candor backup restore latest --to ~/restored\n  candor backup restore documents:latest Documents/letter.txt --to /tmp/letter"
    )]
    Restore(RestoreArgs),
    /// Show all snapshots as folders, read-only, until it is stopped
    #[command(
        after_help = "Example:\n  mkdir ~/snapshots\n  candor backup mount ~/snapshots\n\nEach set has a folder with one folder for each snapshot, named by its time (UTC), and `latest`. Ctrl-C ends it, and so does `umount`."
    )]
    Mount {
        /// An empty folder.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        at: PathBuf,
    },
    /// Check that everything is there and can be read
    #[command(
        after_help = "Example:\n  candor backup check --read-data\n  candor backup check --read-data --repair && candor backup run --all"
    )]
    Check {
        /// Fetch and verify every byte
        #[arg(long)]
        read_data: bool,
        /// Do without what is missing or damaged: the next backup sends it again, if it is still on this device
        #[arg(long)]
        repair: bool,
    },
    /// Restore a random sample, compare it with its sources, and throw it away
    #[command(
        after_help = "Example:\n  candor backup drill\n  candor backup drill documents --files 200\n\nEach file of the newest snapshot has the same chance. What came back is verified byte by byte; where the source is still as it was, the two are compared."
    )]
    Drill {
        /// Sets; without any, all that were backed up.
        #[arg(value_name = "SET")]
        sets: Vec<String>,
        /// How many files of each set
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        files: u32,
    },
    /// Take snapshots off the list, by name or by what is to stay
    #[command(
        after_help = "Example:\n  candor backup forget --keep-daily 7 --keep-weekly 8 --keep-monthly 24 --dry-run\n  candor backup forget 3f9a1c\n  candor backup forget --undo 3f9a1c\n\nRules count for each set and each device that made snapshots in it. Nothing is deleted: see `candor backup prune`."
    )]
    Forget(ForgetArgs),
    /// Find what no snapshot needs; the cell deletes it when its retention window is over
    #[command(
        after_help = "Example:\n  candor backup prune\n\nIt may run beside backups, be stopped at any time and go on later, here or on another device."
    )]
    Prune {
        /// The set; all that are on without it
        set: Option<String>,
        /// How much of what is stored may be unneeded; the rest is not worth storing again
        #[arg(long, value_name = "PERCENT", default_value_t = candor_client::MAX_UNUSED_PERCENT, value_parser = clap::value_parser!(u8).range(0..=100))]
        max_unused: u8,
    },
}

/// `candor backup forget`
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Ids, or the beginnings of them.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Only snapshots of this set
    #[arg(long, value_name = "SET")]
    pub(crate) set: Option<String>,
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_last: u32,
    /// Keep the newest of each of the newest N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_hourly: u32,
    /// … days (UTC)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_daily: u32,
    /// … weeks, from Monday on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_weekly: u32,
    /// … months
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_monthly: u32,
    /// … years
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_yearly: u32,
    /// Only show which would go
    #[arg(long, short = 'n', conflicts_with = "undo")]
    pub(crate) dry_run: bool,
    /// Bring the named snapshots back
    #[arg(long, requires = "snapshots", conflicts_with_all = ["set", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"])]
    pub(crate) undo: bool,
}

/// `candor backup restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// An id, the beginning of one, `latest` (of all sets), or `SET:latest` (of one).
    pub(crate) snapshot: String,
    /// What to restore, as `candor backup ls` shows it; without any, the whole snapshot.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The folder to restore into; made if it is not there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: PathBuf,
    /// Also restore setuid and setgid bits and device nodes
    #[arg(long)]
    pub(crate) privileged: bool,
}

/// `candor export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder to write to: empty, or not there yet
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: PathBuf,
    /// Every snapshot that is listed, instead of the newest of each set and device
    #[arg(long)]
    pub(crate) all_snapshots: bool,
}

/// `candor ledger`
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    /// Which lines, and how.
    #[command(flatten)]
    pub(crate) list: LedgerList,
    /// What else.
    #[command(subcommand)]
    pub(crate) command: Option<LedgerCommand>,
}

/// Which lines of the ledger are shown, and how.
#[derive(Debug, Args)]
pub(crate) struct LedgerList {
    /// Only from then on: a date, a time (2026-01-31T12:00:00Z), or how long ago (30m, 24h, 7d)
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Add the lines up
    #[arg(long, value_enum)]
    pub(crate) by: Option<LedgerBy>,
}

/// What the ledger's lines are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LedgerBy {
    /// Service or errand
    Service,
    /// The other end
    Destination,
}

/// `candor ledger …`
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Show the lines, as `candor ledger` alone does
    #[command(after_help = "Example:\n  candor ledger list --since 24h")]
    List(LedgerList),
    /// Write all lines into a file, one JSON object per line
    #[command(after_help = "Example:\n  candor ledger export -o ledger.jsonl")]
    Export {
        /// The file; must not exist
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
    },
    /// Check that no line was changed, removed or added by somebody else
    #[command(after_help = "Example:\n  candor ledger verify")]
    Verify,
}
