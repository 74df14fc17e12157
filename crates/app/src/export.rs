//! `candor export`: everything of the account, in open formats.

use candor_client::commands::{Command, ExportedView};
use candor_client::path_text::PathText;

use crate::App;
use crate::args::ExportArgs;
use crate::door::Door;
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::text::{bytes, counted, duration};

/// Runs `candor export`.
pub(crate) fn run(app: &App, args: &ExportArgs) -> Outcome {
    let to = std::path::absolute(&args.to).doing(|| "find the current folder".to_owned())?;
    let mut door = Door::open(app)?;
    let command = Command::Export {
        to: PathText::from_path(&to),
        every_snapshot: args.all_snapshots,
    };
    let exported = execute(app, &mut door, command);
    door.close(app);
    let exported = view!(exported?, Exported)?;
    object(&app.ui, "exported", &exported)?;
    app.ui.data(&lines(&exported).join("\n"))?;
    if exported.problems == 0 {
        return Ok(());
    }
    let sentence = counted(
        exported.problems,
        "thing is not in the export as it should be",
        "things are not in the export as they should be",
    );
    let kind = if exported.alarms > 0 {
        Kind::Integrity
    } else {
        Kind::Partial
    };
    Err(Failure::new(kind, sentence)
        .hint("each is named above, and in export.json; the same command tries again"))
}

fn lines(view: &ExportedView) -> Vec<String> {
    vec![
        format!(
            "{} of backups and {} in {}: {}, {} written",
            counted(view.snapshots, "snapshot", "snapshots"),
            counted(view.folders, "synced folder", "synced folders"),
            duration(view.duration_ms),
            counted(view.files, "file", "files"),
            bytes(view.bytes),
        ),
        format!(
            "{}, {}, {}, {}",
            counted(view.consents, "consent", "consents"),
            counted(view.receipts, "receipt", "receipts"),
            counted(view.statements, "signed statement", "signed statements"),
            counted(
                view.ledger_lines,
                "line of the ledger",
                "lines of the ledger"
            ),
        ),
        "README.txt in the folder says what is what. Nothing in it is encrypted.".to_owned(),
    ]
}
