//! The command line, as clap reads it. Every command shows an example in its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

#[cfg(feature = "device")]
pub(crate) use crate::args_device::*;

/// Backups, encrypted before they leave this machine, sent only after you said yes.
#[derive(Debug, Parser)]
#[command(
    name = "candor",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = FIRST_STEPS
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Top,
}

#[cfg(feature = "device")]
const FIRST_STEPS: &str = "\
Example:
  candor up ~/Documents      start, ask, back up, stay up
  candor status              what is on, what is safe, what is pending

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no consent, 4 tampering detected,
5 server not reachable, 6 refused by policy, 7 done in part.";

#[cfg(not(feature = "device"))]
const FIRST_STEPS: &str = "\
Example:
  candor server init --region eu-west --listen 192.0.2.7:7443
  candor server run

This build holds the cell alone: it cannot decrypt anything.";

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Folder with this device's keys, index and ledger [default: $CANDOR_HOME, else ~/.local/share/candor]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) home: Option<PathBuf>,
    /// Print JSON: one document, or one object per line where a command lists as it goes
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read the passphrase of the key store from the first line of this file
    #[cfg(feature = "device")]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    /// Start everything on this machine: cell, device and pages; with PATHs, ask for consent and back them up
    #[cfg(feature = "device")]
    #[command(after_help = UP_EXAMPLE)]
    Up(UpArgs),
    /// Show what is on, what is safe and what is pending
    #[cfg(feature = "device")]
    #[command(after_help = "Example:\n  candor status --json")]
    Status,
    /// Create, recover or show your account
    #[cfg(feature = "device")]
    #[command(subcommand, after_help = "Example:\n  candor account show")]
    Account(AccountCommand),
    /// Show your devices, take a new one in, or a lost one out
    #[cfg(feature = "device")]
    #[command(subcommand, after_help = "Example:\n  candor device list")]
    Device(DeviceCommand),
    /// Switch services on and off, and see what you agreed to
    #[cfg(feature = "device")]
    #[command(
        subcommand,
        after_help = "Example:\n  candor consent on backup\n  candor consent off backup"
    )]
    Consent(ConsentCommand),
    /// Back up, look at snapshots, restore
    #[cfg(feature = "device")]
    #[command(
        subcommand,
        after_help = "Example:\n  candor backup run --all\n  candor backup restore latest --to ~/restored"
    )]
    Backup(BackupCommand),
    /// Keep folders in step with your other devices
    #[cfg(feature = "device")]
    #[command(subcommand, after_help = "Example:\n  candor sync add ~/Documents")]
    Sync(SyncCommand),
    /// Copy everything of your account into a folder, in open formats that need no candor to be read
    #[cfg(feature = "device")]
    #[command(
        after_help = "Example:\n  candor export --to /media/usb/my-data\n\nNothing in the copy is encrypted. Run it again if it was interrupted: it goes on where it stopped."
    )]
    Export(ExportArgs),
    /// Start `candor up` with your session
    #[cfg(feature = "device")]
    #[command(subcommand, after_help = "Example:\n  candor service install")]
    Service(ServiceCommand),
    /// Show every connection that this device opened
    #[cfg(feature = "device")]
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Example:\n  candor ledger --since 7d --by destination"
    )]
    Ledger(LedgerArgs),
    /// Run a cell: the server that keeps other people's sealed objects, or yours
    #[command(
        subcommand,
        after_help = "Example:\n  candor server init --region home\n  candor server run"
    )]
    Server(ServerCommand),
    /// The public log of a cell: its key, proofs, and witnesses of what it says
    #[command(
        subcommand,
        after_help = "Example:\n  candor log key\n  candor log witness run --listen 192.0.2.7:7480"
    )]
    Log(LogCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  candor completions bash > ~/.local/share/bash-completion/completions/candor"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(after_help = "Example:\n  candor man --to ~/.local/share/man/man1")]
    Man {
        /// The folder; made if it is not there.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        to: PathBuf,
    },
}

impl Top {
    /// Whether the command stays until it is stopped, and works on and on.
    #[cfg(feature = "device")]
    pub(crate) const fn lasts(&self) -> bool {
        matches!(self, Self::Up(args) if !args.once)
    }

    /// Whether the command is about this device or a cell on it. What checks files of others needs neither.
    pub(crate) const fn needs_home(&self) -> bool {
        match self {
            #[cfg(feature = "device")]
            Self::Consent(ConsentCommand::Verify { .. }) | Self::Log(LogCommand::Verify { .. }) => {
                false
            }
            Self::Completions { .. } | Self::Man { .. } => false,
            _ => true,
        }
    }
}

#[cfg(feature = "device")]
const UP_EXAMPLE: &str = "\
Example:
  candor up ~/Documents ~/Pictures
  candor up ~/Documents --once --yes --recovery-file phrase.txt --passphrase-file pass.txt";

/// `candor server …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Make a cell: its keys, its database and its configuration
    #[command(
        after_help = "Example:\n  candor server init --region eu-west --controller \"Example Ltd\" --listen 192.0.2.7:7443"
    )]
    Init(ServerInit),
    /// Run the cell until it is stopped
    #[command(after_help = "Example:\n  candor server run --config /etc/candor/cell.toml")]
    Run {
        /// Use the settings in this file instead of the cell's own
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
    },
    /// Print an invitation with which one person can open one account here
    #[command(after_help = "Example:\n  candor server invite > invitation.txt")]
    Invite,
    /// Begin the public log anew, after this cell was restored from a backup
    ///
    /// A restored cell has less than it signed before, so its log's signer refuses to sign. This begins a new
    /// log with a number of its own, which says so to everybody. The old log's files stay beside it. Each
    /// device asks its person before it goes on with this cell: `candor account re-anchor`.
    #[command(after_help = "Example:\n  candor server re-anchor --yes")]
    ReAnchor {
        /// Do it. Without this only what would happen is said
        #[arg(long)]
        yes: bool,
    },
    /// Show what the cell holds, in numbers; also while it runs
    #[command(after_help = "Example:\n  candor server stats --json")]
    Stats,
    /// Check the configuration without starting anything
    #[command(after_help = "Example:\n  candor server check-config --config /etc/candor/cell.toml")]
    CheckConfig {
        /// Use the settings in this file instead of the cell's own
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
    },
}

/// `candor log …`
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the key of the log of the cell on this machine, for policies and witnesses
    #[command(after_help = "Example:\n  candor log key > cell.vkey")]
    Key,
    /// Show the newest checkpoint of your cell's log, checked against everything that this device saw
    #[cfg(feature = "device")]
    #[command(
        after_help = "Example:\n  candor log checkpoint > laptop.checkpoint\n  candor log checkpoint --compare laptop.checkpoint"
    )]
    Checkpoint {
        /// A checkpoint that another device or person was shown: it must belong to the same log
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        compare: Option<PathBuf>,
    },
    /// Prove that a statement of your account, a consent for example, is in the cell's log
    #[cfg(feature = "device")]
    #[command(after_help = "Example:\n  candor log prove 3f9a1c -o consent.tlog-proof")]
    Prove {
        /// The statement's id, as `candor consent history --json` shows it, or the beginning of it
        #[arg(value_name = "STATEMENT")]
        statement: String,
        /// The file to write; must not exist. Without it, the proof is printed
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Look through the cell's log for what it should have of your account, and what it should not
    #[cfg(feature = "device")]
    #[command(
        after_help = "Example:\n  candor log monitor\n\nEvery backup does this too, as long as the service is on."
    )]
    Monitor,
    /// Check a proof that something is in a log; needs nothing but the files
    #[cfg(feature = "device")]
    #[command(
        after_help = "Example:\n  candor log verify consent.tlog-proof --leaf 0100… --policy family.policy\n\nExit codes: 0 valid, 4 not valid, 2 a file cannot be read."
    )]
    Verify {
        /// The proof (C2SP tlog-proof), as `candor log prove` makes it
        #[arg(value_name = "PROOF", value_hint = ValueHint::FilePath)]
        proof: PathBuf,
        /// The entry that should be in the log, in hexadecimal; not for a proof that a log forked
        #[arg(long, value_name = "HEX")]
        leaf: Option<String>,
        /// Which logs you know and how many witnesses you ask for, as a C2SP tlog-policy file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        policy: PathBuf,
    },
    /// Witness the logs of other people's cells: confirm what each of them says, once
    #[command(
        subcommand,
        after_help = "Example:\n  candor log witness run --listen 192.0.2.7:7480\n  candor log witness add \"$(cat cell.vkey)\""
    )]
    Witness(WitnessCommand),
}

/// `candor log witness …`
#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Run the witness until it is stopped; makes its key the first time, and prints it
    #[command(
        after_help = "Example:\n  candor log witness run --listen 192.0.2.7:7480 --name alice.example/witness"
    )]
    Run(WitnessRun),
    /// Witness one more log, from now on; the witness may be running
    #[command(after_help = "Example:\n  candor log witness add \"$(cat cell.vkey)\"")]
    Add {
        /// The log's key, as `candor log key` prints it
        #[arg(value_name = "VKEY")]
        vkey: String,
        /// Folder of the witness [default: witness, in the home]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Print the witness's key, for policies and for the settings of the cells that it witnesses
    #[command(after_help = "Example:\n  candor log witness key")]
    Key {
        /// Folder of the witness [default: witness, in the home]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// `candor log witness run`
#[derive(Debug, Args)]
pub(crate) struct WitnessRun {
    /// Address and port at which cells reach the witness, over plain HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: std::net::SocketAddr,
    /// What the witness is called, for ever; by default after its key
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Folder of the witness [default: witness, in the home]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// `candor server init`
#[derive(Debug, Args)]
pub(crate) struct ServerInit {
    /// The jurisdiction in which this cell keeps data
    #[arg(long, value_name = "NAME")]
    pub(crate) region: String,
    /// The person or organisation that runs it, as people will read it before they consent
    #[arg(long, value_name = "NAME", default_value = "whoever runs this cell")]
    pub(crate) controller: String,
    /// Address and port to listen on, which invitations name unless `public_addresses` in cell.toml
    /// does; port 0 chooses a free one, once, and keeps it
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// Name and port under which other machines reach this cell, for invitations; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) public_address: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &Command, path: &str) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example:") && help.contains("candor"),
                "no example in the help of `{path}`"
            );
            for inner in command.get_subcommands() {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&Cli::command(), "candor");
    }
}
