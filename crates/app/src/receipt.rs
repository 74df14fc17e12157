//! `candor consent receipt`, `candor consent verify` and `candor log verify`. The two that verify need no
//! home, no account and no cell, and open no connection.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use candor_client::clock::{Clock as _, SystemClock};
use candor_client::commands::{Command, View};
use candor_client::receipt::{
    self, ErasureReceiptView, POLICY_MAX_BYTES, PROOF_FILE_MAX_BYTES, ProofView,
    RECEIPT_TEXT_MAX_BYTES, ReceiptView, StandingView,
};

use crate::App;
use crate::args::{ReceiptArgs, ReceiptFormat};
use crate::door::Door;
use crate::failure::{Failure, Kind, Outcome};
use crate::home::write_new_private;
use crate::progress::{execute, object, view};
use crate::text::{bytes, count, shown, time};

/// A file that was named; the whole of it, up to a limit. What cannot be read is wrong usage: nothing was
/// checked.
fn read_file(path: &Path, max_bytes: usize) -> Outcome<Vec<u8>> {
    let unreadable = |error: &std::io::Error| {
        Failure::because(format!("{} cannot be read", path.display()), error).kind(Kind::Usage)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(max_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() > max_bytes {
        let sentence = format!("{} is too long to be the right file", path.display());
        return Err(Failure::usage(sentence));
    }
    Ok(bytes)
}

fn read_text(path: &Path, max_bytes: usize) -> Outcome<String> {
    String::from_utf8(read_file(path, max_bytes)?)
        .map_err(|_| Failure::usage(format!("{} is not a text", path.display())))
}

/// `candor consent verify`.
pub(crate) fn verify(app: &App, file: &Path, policy: Option<&Path>) -> Outcome {
    let text = read_text(file, RECEIPT_TEXT_MAX_BYTES)?;
    let policy = policy.map(|path| read_file(path, POLICY_MAX_BYTES));
    let policy = policy.transpose()?;
    if receipt::is_erasure_receipt(&text) {
        let receipt = receipt::verify_erasure_receipt(&text, policy.as_deref())?;
        object(&app.ui, "erasure-receipt", &receipt)?;
        app.ui.data(&erasure_lines(&receipt).join("\n"))?;
        return note_policy(app, &receipt.standing, &receipt.cell);
    }
    let receipt = receipt::verify_receipt(&text, policy.as_deref())?;
    object(&app.ui, "receipt", &receipt)?;
    app.ui.data(&receipt_lines(&receipt).join("\n"))?;
    note_policy(app, &receipt.standing, &receipt.cell)
}

/// What a reader without a policy has to know.
fn note_policy(app: &App, standing: &StandingView, cell: &str) -> Outcome {
    if !standing.has_policy && !app.ui.json() {
        app.ui.note(&format!(
            "No policy was given, so the log's key is the one that this receipt's cell names under its root key. Whether that is the cell that you mean, compare its id: {cell}. A policy (--policy FILE) says which logs you know, and whose word you ask for."
        ));
    }
    Ok(())
}

/// `candor log verify`.
pub(crate) fn verify_proof(app: &App, file: &Path, leaf: Option<&str>, policy: &Path) -> Outcome {
    let proof = read_file(file, PROOF_FILE_MAX_BYTES)?;
    let policy = read_file(policy, POLICY_MAX_BYTES)?;
    if receipt::is_fork_proof(&proof) {
        return verify_fork(app, &proof, &policy);
    }
    let Some(leaf) = leaf else {
        return Err(Failure::usage("a proof is of one entry, which is missing")
            .hint("--leaf HEX, as `candor log prove --json` shows it"));
    };
    let proof = receipt::verify_proof(&proof, leaf, &policy)?;
    object(&app.ui, "proof", &proof)?;
    app.ui.data(&proof_lines(&proof).join("\n"))
}

/// The proof that a log signed two histories.
fn verify_fork(app: &App, proof: &[u8], policy: &[u8]) -> Outcome {
    let fork = receipt::verify_fork(proof, policy)?;
    object(&app.ui, "fork", &fork)?;
    let mut lines = vec![
        "The proof holds: this log signed two trees that contradict each other.".to_owned(),
        format!("log    {}", shown(&fork.log)),
    ];
    for (size, root) in &fork.signed {
        lines.push(format!("signed {} entries, root {root}", count(*size)));
    }
    app.ui.data(&lines.join("\n"))
}

/// `candor consent receipt`.
pub(crate) fn make(app: &App, args: ReceiptArgs) -> Outcome {
    let mut door = Door::open(app)?;
    let id = args.id.clone();
    let made = execute(app, &mut door, Command::ConsentReceipt { id });
    door.close(app);
    let made = match made? {
        View::ErasureReceipt(made) => {
            if args.format == ReceiptFormat::JsonLd {
                return Err(Failure::usage(
                    "receipts of erasures have one form, `candor`",
                ));
            }
            let about = serde_json::json!(made.receipt);
            return write(app, &args, made.text, about, &made.receipt.standing);
        }
        made => view!(made, Receipt)?,
    };
    let content = match args.format {
        ReceiptFormat::Candor => made.text,
        ReceiptFormat::JsonLd => receipt::to_json_ld(&made.text, SystemClock.now())?,
    };
    let about = serde_json::json!(made.receipt);
    write(app, &args, content, about, &made.receipt.standing)
}

/// Prints a receipt, or writes it to the file that was named.
fn write(
    app: &App,
    args: &ReceiptArgs,
    content: String,
    about: serde_json::Value,
    how: &StandingView,
) -> Outcome {
    let Some(path) = &args.output else {
        return if app.ui.json() {
            let written = serde_json::json!({ "content": content, "receipt": about });
            app.ui.object("consent-receipt", written)
        } else {
            app.ui.out(content.trim_end())
        };
    };
    write_new_private(path, content.as_bytes()).map_err(|error| {
        let failure = Failure::because(format!("{} cannot be written", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure
                .kind(Kind::Usage)
                .hint("name a file that is not there yet"),
            _ => failure,
        }
    })?;
    let file = path.display().to_string();
    let written = serde_json::json!({ "file": file, "receipt": about });
    app.ui.object("consent-receipt", written)?;
    app.ui.note(&format!(
        "The receipt is in {}: {}.\nIt is about you, so give it to nobody who need not know. Anybody can check it, offline: candor consent verify {}",
        path.display(),
        standing(how),
        path.display()
    ));
    Ok(())
}

/// A receipt in plain words.
fn receipt_lines(receipt: &ReceiptView) -> Vec<String> {
    let vault = match &receipt.vault {
        Some(vault) => format!("vault {vault}"),
        None => "no vault".to_owned(),
    };
    let renewed = if receipt.renewed {
        ", to go on with an earlier consent"
    } else {
        ""
    };
    vec![
        "The receipt is valid.".to_owned(),
        format!(
            "agreed        {} ({}), {vault}",
            receipt.service,
            shown(&receipt.purpose)
        ),
        format!("  data        {}", receipt.categories.join("; ")),
        format!("  handling    {}", receipt.operations.join(", ")),
        format!(
            "by            account {}, device {}",
            receipt.account, receipt.device
        ),
        format!(
            "to            {}, region {} (cell {})",
            shown(&receipt.controller),
            shown(&receipt.region),
            receipt.cell
        ),
        format!(
            "given         {}, {}, notice in {}{renewed}",
            time(receipt.given_ms),
            receipt.collected,
            shown(&receipt.language)
        ),
        format!("until         {}", time(receipt.ends_ms)),
        format!("to withdraw   {}", shown(&receipt.how_to_withdraw)),
        format!(
            "acknowledged  {}, by the cell that it was given to",
            time(receipt.acknowledged_ms)
        ),
        format!(
            "log           {}",
            place(receipt.index, receipt.size, &receipt.log)
        ),
        format!("witnesses     {}", standing(&receipt.standing)),
        "That the consent was not withdrawn since is not what a receipt says.".to_owned(),
    ]
}

/// A receipt of an erasure in plain words.
fn erasure_lines(receipt: &ErasureReceiptView) -> Vec<String> {
    let what = match &receipt.vault {
        Some(vault) => format!("vault {vault}"),
        None => "everything".to_owned(),
    };
    vec![
        "The receipt is valid.".to_owned(),
        format!("erased        {what} of account {}", receipt.account),
        format!(
            "  how much    {} objects, {}; {} consent records",
            count(receipt.objects),
            bytes(receipt.bytes),
            count(receipt.consents)
        ),
        format!(
            "by            {}, region {} (cell {})",
            shown(&receipt.controller),
            shown(&receipt.region),
            receipt.cell
        ),
        format!("asked for     {}", time(receipt.asked_ms)),
        format!(
            "gone          {}, by the cell's clock",
            time(receipt.erased_ms)
        ),
        format!(
            "log           {}",
            place(receipt.index, receipt.size, &receipt.log)
        ),
        format!("witnesses     {}", standing(&receipt.standing)),
        "That nobody kept a copy elsewhere is not what a receipt can prove.".to_owned(),
    ]
}

fn proof_lines(proof: &ProofView) -> Vec<String> {
    let leaf = proof.leaf.as_deref().unwrap_or("an entry");
    vec![
        "The proof is valid.".to_owned(),
        format!("leaf          {leaf}"),
        format!(
            "log           {}",
            place(proof.index, proof.size, &proof.log)
        ),
        format!("witnesses     {}", standing(&proof.standing)),
    ]
}

fn place(index: u64, size: u64, log: &str) -> String {
    format!(
        "entry {} of {} in {}",
        count(index),
        count(size),
        shown(log)
    )
}

/// Who vouches for a log, in words.
fn standing(standing: &StandingView) -> String {
    let names: Vec<String> = standing.witnesses.iter().map(|name| shown(name)).collect();
    let names = names.join(", ");
    match standing.witnessed_ms.filter(|_| standing.witnessed) {
        Some(ms) => format!("witnessed by {names}; a quorum by {}", time(ms)),
        None if standing.witnessed => format!("witnessed by {names}"),
        None if names.is_empty() => "unwitnessed".to_owned(),
        None => format!("unwitnessed: only by {names}, and the policy has no quorum"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(witnessed: bool, names: &[&str], witnessed_ms: Option<i64>) -> StandingView {
        StandingView {
            witnessed,
            witnesses: names.iter().map(|name| (*name).to_owned()).collect(),
            witnessed_ms,
            has_quorum: witnessed,
            has_policy: true,
        }
    }

    #[test]
    fn a_standing_is_said_in_words() {
        assert_eq!(standing(&view(false, &[], None)), "unwitnessed");
        assert_eq!(
            standing(&view(true, &["a", "b"], Some(0))),
            "witnessed by a, b; a quorum by 1970-01-01 00:00 UTC"
        );
        assert_eq!(
            standing(&view(false, &["a\n"], None)),
            "unwitnessed: only by a\\n, and the policy has no quorum"
        );
    }
}
