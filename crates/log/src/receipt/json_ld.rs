//! A receipt in the words of ISO/IEC TS 27560:2023 and the W3C Data Privacy Vocabulary (DPV 2), as
//! JSON-LD, for programs that know those and nothing of ours.
//!
//! It is derived from a verified receipt and signed by nobody. Every term is of the released vocabulary;
//! `docs/formats/receipt.md` lists them, and what of the standard a record here does not hold. The context
//! stands inside, so that reading it fetches nothing.

use candor_wire::Millis;
use candor_wire::consent_record::{Collected, DataCategory, Event, Operation};
use candor_wire::ids::to_hex;
use candor_wire::time::DAY_MS;
use serde_json::{Value, json};

use super::Verified;

/// Milliseconds in a second.
const SECOND_MS: i64 = 1000;

/// Seconds in a day.
const DAY_SECONDS: i64 = DAY_MS / SECOND_MS;

/// Days in a cycle of 400 years of the Gregorian calendar.
const CYCLE_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01: counted in years that begin in March, a leap day comes last.
const EPOCH_DAYS: i64 = 719_468;

impl Verified {
    /// The JSON-LD document, with a line end. `made_at` is when it is made: this crate has no clock.
    pub fn to_json_ld(&self, made_at: Millis) -> String {
        let id = self.id.to_string();
        let document = json!({
            "@context": context(),
            "@type": "dpv:ConsentReceipt",
            "dct:identifier": id,
            "dct:conformsTo": iri("https://w3id.org/dpv/schema/dpv-27560#receipt-record"),
            "dct:created": time(made_at),
            "dct:description": "Derived from a signed Candor consent receipt. This document itself is not signed.",
            "dct:source": self.provenance(),
            "dpv:hasIdentifier": id,
            "dpv:hasRecordOfActivity": self.record_json(&id),
        });
        format!("{document:#}\n")
    }

    fn provenance(&self) -> String {
        format!(
            "acknowledged by cell {} at {}; leaf {} of the transparency log {}",
            self.cell,
            time(self.acknowledged),
            self.index,
            self.log.name()
        )
    }

    fn record_json(&self, id: &str) -> Value {
        let record = &self.record;
        let mut json = json!({
            "@type": "dpv:ConsentRecord",
            "dct:identifier": id,
            "dct:conformsTo": iri("https://w3id.org/dpv/schema/dpv-27560#record"),
            "dct:language": record.language,
            "dpv:hasConsentStatus": self.status(),
            "dpv:hasDataController": self.controller(),
            "dpv:hasDataSubject": {
                "@type": "dpv:DataSubject",
                "dct:identifier": record.subject.to_string(),
            },
            "dpv:hasIdentifier": id,
            "dpv:hasNotice": {
                "@type": "dpv:ConsentNotice",
                "dct:identifier": sha256(&record.notice_hash),
                "dct:language": record.language,
            },
            "dpv:hasProcess": self.process(),
        });
        if let Some(previous) = record.previous {
            json["dct:replaces"] = json!({
                "@type": "dpv:ConsentRecord",
                "dct:identifier": previous.to_string(),
            });
        }
        json
    }

    fn controller(&self) -> Value {
        json!({
            "@type": "dpv:DataController",
            "dct:identifier": self.record.recipient.cell.to_string(),
            "dpv:hasName": self.record.recipient.controller,
        })
    }

    fn place(&self) -> Value {
        json!({ "@type": "dpv:Location", "dct:title": self.record.recipient.region })
    }

    fn process(&self) -> Value {
        let record = &self.record;
        let data: Vec<Value> = record
            .categories
            .iter()
            .map(|one| self.data(*one))
            .collect();
        let operations: Vec<Value> = record
            .operations
            .iter()
            .map(|one| operation(*one))
            .collect();
        json!({
            "@type": "dpv:Process",
            "dpv:hasConsentControl": {
                "@type": "dpv:WithdrawConsent",
                "dpv:isExercisedAt": record.how_to_withdraw,
            },
            "dpv:hasDataController": self.controller(),
            "dpv:hasDataSource": iri("dpv:DataSubjectDataSource"),
            "dpv:hasJurisdiction": self.place(),
            "dpv:hasLegalBasis": [iri("dpv:ExplicitlyExpressedConsent"), iri("eu-gdpr:A6-1-a")],
            "dpv:hasPersonalData": data,
            "dpv:hasProcessing": operations,
            "dpv:hasPurpose": {
                "@type": "dpv:Purpose",
                "dct:identifier": [record.purpose, sha256(&record.purpose_hash)],
                "skos:broader": iri("dpv:RequestedServiceProvision"),
            },
            "dpv:hasRecipient": self.controller(),
            "dpv:hasRight": {
                "@type": ["dpv:DataSubjectRight", "eu-gdpr:A7-3"],
                "dpv:isExercisedAt": record.how_to_withdraw,
            },
            "dpv:hasService": { "@type": "dpv:Service", "dct:title": record.service.name() },
            "dpv:hasStorageCondition": [
                { "@type": "dpv:StorageLocation", "dpv:hasLocation": self.place() },
                {
                    "@type": "dpv:StorageDuration",
                    "dpv:hasDuration": {
                        "@type": "dpv:UntilEventDuration",
                        "rdf:value": "erasure, which the data subject asks for",
                    },
                },
                {
                    "@type": "dpv:StorageDeletion",
                    "dpv:hasDuration": {
                        "@type": "dpv:TemporalDuration",
                        "rdf:value": format!("P{}D", record.retention_days),
                    },
                },
            ],
        })
    }

    /// A category of data. What is sealed is named by its vault, as the cell knows it.
    fn data(&self, category: DataCategory) -> Value {
        let (title, broader) = match category {
            DataCategory::SealedFiles => (
                "contents, names and properties of files, sealed on the device",
                None,
            ),
            DataCategory::ObjectSizes => ("sizes and number of sealed objects", None),
            DataCategory::AccessTimes => ("times of uploads and downloads", None),
            DataCategory::NetworkAddress => (
                "network address of the device while it is connected",
                Some("pd:IPAddress"),
            ),
            DataCategory::Identifiers => (
                "random ids of account, device and vault, and public keys",
                Some("pd:Identifier"),
            ),
        };
        let mut data = json!({ "@type": "dpv:PersonalData", "dct:title": title });
        if let Some(broader) = broader {
            data["skos:broader"] = iri(broader);
        }
        if let (DataCategory::SealedFiles, Some(vault)) = (category, self.record.vault) {
            data["dct:identifier"] = json!(vault.to_string());
            data["dpv:hasTechnicalMeasure"] = iri("dpv:Encryption");
        }
        data
    }

    fn status(&self) -> Value {
        let record = &self.record;
        let state = match record.event {
            Event::Given => "dpv:ConsentGiven",
            Event::Renewed => "dpv:RenewedConsentGiven",
        };
        let method = match record.collected {
            Collected::Terminal => "a question on a terminal was answered",
            Collected::CommandFlag => {
                "a command carried an explicit yes; the same text was printed"
            }
            Collected::Page => "the switch on the device's own page was used",
        };
        json!({
            "@type": [state, "dpv:ExplicitlyExpressedConsent"],
            "dpv:hasDuration": {
                "@type": "dpv:UntilTimeDuration",
                "rdf:value": time(record.ends_at),
            },
            "dpv:hasIndicationMethod": method,
            "dpv:isIndicatedAtTime": time(record.given_at),
            "dpv:isIndicatedBy": iri("dpv:DataSubject"),
        })
    }
}

fn context() -> Value {
    json!({
        "dct": "http://purl.org/dc/terms/",
        "dpv": "https://w3id.org/dpv#",
        "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
        "pd": "https://w3id.org/dpv/pd#",
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "skos": "http://www.w3.org/2004/02/skos/core#",
    })
}

fn operation(operation: Operation) -> Value {
    iri(match operation {
        Operation::Receive => "dpv:Collect",
        Operation::Store => "dpv:Store",
        Operation::ReturnToOwner => "dpv:Retrieve",
        Operation::Delete => "dpv:Erase",
    })
}

/// A name, and not a text.
fn iri(name: &str) -> Value {
    json!({ "@id": name })
}

fn sha256(hash: &[u8; 32]) -> String {
    format!("sha256:{}", to_hex(hash))
}

/// RFC 3339, UTC, to the second. A year outside of 0 to 9999 is written with its sign, as ISO 8601 has it.
fn time(time: Millis) -> String {
    let seconds = time.0.div_euclid(SECOND_MS);
    let (year, month, day) = date_of(seconds.div_euclid(DAY_SECONDS));
    let rest = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+}"),
    };
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01.
fn date_of(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + EPOCH_DAYS;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (
        cycle * 400 + year + i64::from(month <= 2),
        month,
        day_of_year - (153 * from_march + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_790_000_000_000, "2026-09-21T14:13:20Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (253_402_300_800_000, "+10000-01-01T00:00:00Z"),
        ];
        for (ms, expected) in cases {
            assert_eq!(time(Millis(ms)), expected);
        }
        // The ends of the range are written somehow, and stop nothing.
        assert!(time(Millis(i64::MIN)).starts_with('-'));
        assert!(time(Millis(i64::MAX)).starts_with('+'));
    }
}
