//! Making a receipt of a consent: what is on the chain, and the proof that it is in the cell's log.

use candor_log::receipt::{RECEIPT_VERSION, Receipt};
use candor_vault::report::Cancel;
use candor_wire::chain::Record;
use candor_wire::statement::Kind;

use crate::chain::Chain;
use crate::commands::{Failure, FailureKind, View};
use crate::engine::{Engine, unknown_chain};
use crate::receipt::{self, ReceiptFileView};

impl Engine {
    /// `consent receipt`. The statement is named by its id, or by a beginning of it that no other has.
    pub(crate) fn consent_receipt(
        &self,
        statement: &str,
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        if let Some(asked) = self.erasure_named(statement) {
            return self.erasure_receipt(asked, cancel);
        }
        let View::LogProof(proven) = self.log_prove(statement, cancel)? else {
            return Err(Failure::new(
                FailureKind::Failed,
                "the log gave no proof for a statement",
            ));
        };
        let chain = self.with_chain(Chain::clone).ok_or_else(unknown_chain)?;
        let record = chain
            .records()
            .iter()
            .find(|record| record.commitment.to_string() == proven.statement)
            .ok_or_else(unknown_chain)?;
        let receipt = self.receipt_of(&chain, record, proven.proof.into_bytes())?;
        let text = receipt.to_text();
        // Nothing leaves this device as a receipt that others would refuse.
        Ok(View::Receipt(Box::new(ReceiptFileView {
            receipt: receipt::verify_receipt(&text, None)?,
            text,
        })))
    }

    fn receipt_of(
        &self,
        chain: &Chain,
        record: &Record,
        proof: Vec<u8>,
    ) -> Result<Receipt, Failure> {
        if record.kind != Kind::ConsentGiven {
            return Err(Failure::new(
                FailureKind::Usage,
                "that statement is not a consent, and there are receipts of consents and of erasures alone",
            )
            .with_hint(
                "`candor consent history` lists the consents; `candor log prove` proves the others",
            ));
        }
        let (Some(statement), Some(acknowledgement)) = (&record.statement, &record.acknowledgement)
        else {
            return Err(Failure::new(
                FailureKind::Failed,
                "that consent was erased: there is nothing left that a receipt could show",
            ));
        };
        let parsed = statement.parse().map_err(|error| Failure::of(&error))?;
        let signer = chain.view().key_of(parsed.entry.signer.as_ref());
        let signer = signer.ok_or_else(unknown_chain)?.clone();
        Ok(Receipt {
            version: RECEIPT_VERSION,
            root: self.facts.invitation.root,
            keys: chain.cell_keys().to_vec(),
            statement: statement.clone(),
            signer,
            acknowledgement: acknowledgement.clone(),
            proof,
        })
    }
}
