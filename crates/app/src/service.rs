//! `candor service …`: starts `candor up` with the person's session, by the system's own service manager.
//!
//! Only a file is written; nothing is started and nothing is switched on: what `candor up` may do is decided by consent.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use candor_client::keystore::{self, KeyState};

use crate::App;
use crate::args::{ServiceArgs, ServiceCommand, ServiceManager};
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::home;

/// The first words of what this program writes: a file without them is somebody else's, and stays.
const MARK: &str = "Written by `candor service install`";

/// The service's name at launchd.
const LAUNCHD_LABEL: &str = "candor.up";

/// What starts the program.
struct Start {
    words: Vec<Vec<u8>>,
}

/// Runs a `service` command.
pub(crate) fn run(app: &App, command: ServiceCommand) -> Outcome {
    match command {
        ServiceCommand::Install(args) => install(app, &args),
        ServiceCommand::Uninstall { manager } => uninstall(app, manager.unwrap_or_default()),
    }
}

fn install(app: &App, args: &ServiceArgs) -> Outcome {
    let manager = args.manager.unwrap_or_default();
    let start = start(app)?;
    let text = match manager {
        ServiceManager::Systemd => systemd(&start),
        ServiceManager::Launchd => launchd(&start),
    };
    if args.print {
        return app.ui.data(text.trim_end());
    }
    let path = place(manager)?;
    check_ours(&path)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing(|| format!("make the folder {}", folder.display()))?;
    }
    home::replace_private(&path, text.as_bytes()).doing(|| format!("write {}", path.display()))?;
    app.ui.object(
        "installed",
        serde_json::json!({ "file": path.to_string_lossy() }),
    )?;
    app.ui.data(&path.display().to_string())?;
    app.ui.note(match manager {
        ServiceManager::Systemd => {
            "Next: systemctl --user daemon-reload && systemctl --user enable --now candor\nTo have it run while you are not logged in: loginctl enable-linger"
        }
        ServiceManager::Launchd => {
            "Next: launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/candor.up.plist"
        }
    });
    Ok(())
}

fn uninstall(app: &App, manager: ServiceManager) -> Outcome {
    let path = place(manager)?;
    if !path.exists() {
        return app.ui.data("there is nothing to remove");
    }
    check_ours(&path)?;
    fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
    app.ui.object(
        "removed",
        serde_json::json!({ "file": path.to_string_lossy() }),
    )?;
    app.ui.data(&format!("{} is removed", path.display()))?;
    app.ui.note(match manager {
        ServiceManager::Systemd => "What runs goes on until: systemctl --user stop candor",
        ServiceManager::Launchd => {
            "What runs goes on until: launchctl bootout gui/$(id -u)/candor.up"
        }
    });
    Ok(())
}

/// The command that the service runs. Nobody is there to type a passphrase.
#[expect(
    clippy::disallowed_methods,
    reason = "the program is where the environment is read"
)]
fn start(app: &App) -> Outcome<Start> {
    let program = std::env::current_exe().doing(|| "find this program's own file".to_owned())?;
    let state = keystore::state(&app.home.path().join("keys"))
        .map_err(|error| candor_client::commands::Failure::of(&error))?;
    match (state, &app.passphrase_file) {
        (KeyState::Missing, _) => {
            let sentence = "this device belongs to no account yet";
            return Err(
                Failure::new(Kind::Failed, sentence).hint("begin with: candor up ~/Documents")
            );
        }
        (KeyState::Passphrase, None) => {
            let sentence = "the keys on this device need their passphrase, and a service cannot be asked for it";
            return Err(Failure::usage(sentence)
                .hint("give --passphrase-file FILE: the service reads it when it starts"));
        }
        _ => {}
    }
    let mut words = vec![program, PathBuf::from("--home"), app.home.path().to_owned()];
    if let Some(file) = &app.passphrase_file {
        let file = std::path::absolute(file).doing(|| "find the current folder".to_owned())?;
        words.extend([PathBuf::from("--passphrase-file"), file]);
    }
    words.extend([PathBuf::from("up"), PathBuf::from("--no-open")]);
    let words: Vec<Vec<u8>> = words
        .into_iter()
        .map(|word| word.into_os_string().as_bytes().to_vec())
        .collect();
    let is_awkward = |word: &Vec<u8>| {
        word.iter().any(|byte| byte.is_ascii_control()) || std::str::from_utf8(word).is_err()
    };
    if words.iter().any(is_awkward) {
        return Err(Failure::usage(
            "a path that is not text, or has a control character in it, cannot be written into a service file",
        ));
    }
    Ok(Start { words })
}

/// Where the service manager looks for the file.
fn place(manager: ServiceManager) -> Outcome<PathBuf> {
    let folder = match manager {
        ServiceManager::Systemd => home::config_folder()?.join("systemd/user"),
        ServiceManager::Launchd => home::user_folder()?.join("Library/LaunchAgents"),
    };
    Ok(folder.join(match manager {
        ServiceManager::Systemd => "candor.service".to_owned(),
        ServiceManager::Launchd => format!("{LAUNCHD_LABEL}.plist"),
    }))
}

/// A file that somebody else wrote is left alone.
fn check_ours(path: &Path) -> Outcome {
    match fs::read_to_string(path) {
        Ok(text) if text.contains(MARK) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => {
            let sentence = format!("{} is there, and candor did not write it", path.display());
            Err(Failure::new(Kind::Failed, sentence).hint("move it away first"))
        }
    }
}

/// A systemd unit of the person's own (systemd.service(5)).
fn systemd(start: &Start) -> String {
    // Variables are not replaced in the program's own path.
    let words: Vec<String> = start
        .words
        .iter()
        .enumerate()
        .map(|(place, word)| quoted(word, place > 0))
        .collect();
    format!(
        "# {MARK}.\n\
         [Unit]\n\
         Description=Candor: backups and synced folders, with your consent\n\
         Documentation=man:candor(1)\n\
         \n\
         [Service]\n\
         ExecStart={}\n\
         Restart=on-failure\n\
         RestartSec=10\n\
         RestartPreventExitStatus=2 3 4 6\n\
         NoNewPrivileges=yes\n\
         UMask=0077\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        words.join(" ")
    )
}

/// A word of a command line as systemd reads it: in quotes, with its specifiers and, where they would be replaced, its
/// variables doubled.
fn quoted(word: &[u8], has_variables: bool) -> String {
    let mut out = String::from("\"");
    for c in OsStr::from_bytes(word).to_string_lossy().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.extend([c, c]),
            '$' if has_variables => out.extend([c, c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A launch agent of the person's own (launchd.plist(5)).
fn launchd(start: &Start) -> String {
    let words: Vec<String> = start
        .words
        .iter()
        .map(|word| {
            let text = OsStr::from_bytes(word).to_string_lossy();
            format!("    <string>{}</string>\n", escaped(&text))
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- {MARK}. -->\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \x20 <key>Label</key>\n\
         \x20 <string>{LAUNCHD_LABEL}</string>\n\
         \x20 <key>ProgramArguments</key>\n\
         \x20 <array>\n\
         {}\
         \x20 </array>\n\
         \x20 <key>RunAtLoad</key>\n\
         \x20 <true/>\n\
         \x20 <key>KeepAlive</key>\n\
         \x20 <dict>\n\
         \x20   <key>SuccessfulExit</key>\n\
         \x20   <false/>\n\
         \x20 </dict>\n\
         \x20 <key>Umask</key>\n\
         \x20 <integer>63</integer>\n\
         </dict>\n\
         </plist>\n",
        words.concat()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Start {
        let words = [
            "/opt/100% $candor/candor",
            "--home",
            "/home/zoë/\"a\" & <b>\\c $HOME",
            "up",
        ];
        Start {
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        }
    }

    #[test]
    fn systemd_reads_every_word_as_it_is() {
        let unit = systemd(&sample());
        let start = unit
            .lines()
            .find(|line| line.starts_with("ExecStart="))
            .unwrap_or_default();
        assert_eq!(
            start,
            r#"ExecStart="/opt/100%% $candor/candor" "--home" "/home/zoë/\"a\" & <b>\\c $$HOME" "up""#
        );
        assert!(unit.contains(MARK));
    }

    #[test]
    fn launchd_reads_every_word_as_it_is() {
        let plist = launchd(&sample());
        assert!(plist.contains("    <string>/opt/100% $candor/candor</string>\n"));
        assert!(plist.contains("    <string>/home/zoë/\"a\" &amp; &lt;b&gt;\\c $HOME</string>\n"));
        assert!(plist.contains("  <key>Label</key>\n  <string>candor.up</string>\n"));
        assert!(plist.contains(MARK));
    }
}
