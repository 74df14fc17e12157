//! The messages of the interface, and what they are made of as far as the cell looks into it.

use candor_wire::limits::{HAS_MAX_IDS, RESCUED_MAX};

/// One value of a message: key, name, what it is, whether it can be absent, what it means.
pub(super) type Field = (u8, &'static str, Kind, bool, &'static str);

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The version of a message: this number and no other.
    Version,
    Number,
    Flag,
    /// A byte string of this length; 0 for any.
    Bytes(u16),
    /// Another schema.
    Of(&'static str),
    /// Several of a schema.
    ListOf(&'static str),
    /// Byte strings of this length, at most so many.
    ListOfBytes(u16, usize),
    ListOfFlags,
}

const VERSION: Field = (0, "version", Kind::Version, false, "Always 1.");

/// Every message, and what they are made of as far as the cell looks into it.
pub(super) const SCHEMAS: &[(&str, &str, &[Field])] = &[
    (
        "CellDescription",
        "Who the cell is.",
        &[
            VERSION,
            (
                1,
                "keys",
                Kind::ListOf("SignedCellKeys"),
                false,
                "Every generation, oldest first.",
            ),
        ],
    ),
    (
        "SignedCellKeys",
        "A generation of the cell's keys, signed by its root key.",
        &[
            (
                0,
                "keys",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the keys.",
            ),
            (
                1,
                "signature",
                Kind::Bytes(64),
                false,
                "Ed25519, by the root key.",
            ),
        ],
    ),
    (
        "OpenAccount",
        "Opens an account.",
        &[
            VERSION,
            (
                1,
                "account",
                Kind::Bytes(16),
                false,
                "The new account, chosen at random by the device.",
            ),
            (
                2,
                "right",
                Kind::Bytes(16),
                false,
                "The one-time right in the invitation.",
            ),
            (
                3,
                "records",
                Kind::ListOf("Record"),
                false,
                "Genesis, first device, the account's first epoch.",
            ),
        ],
    ),
    (
        "Record",
        "One place of a chain.",
        &[
            VERSION,
            (1, "sequence", Kind::Number, false, "Place, from 0."),
            (2, "kind", Kind::Number, false, "Kind of the statement."),
            (
                3,
                "commitment",
                Kind::Bytes(32),
                false,
                "Commitment to the statement.",
            ),
            (
                4,
                "statement",
                Kind::Of("Statement"),
                true,
                "The statement; absent once erased.",
            ),
            (
                5,
                "acknowledgement",
                Kind::Of("SignedAcknowledgement"),
                true,
                "Absent in what a device sends.",
            ),
        ],
    ),
    (
        "Statement",
        "A signed statement and its salt.",
        &[
            (
                0,
                "signed",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the signed entry.",
            ),
            (1, "salt", Kind::Bytes(32), false, "Opens the commitment."),
        ],
    ),
    (
        "SignedAcknowledgement",
        "The cell's promise that it holds a statement.",
        &[
            (
                0,
                "acknowledgement",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the acknowledgement.",
            ),
            (
                1,
                "signature",
                Kind::Bytes(64),
                false,
                "Ed25519, by the acknowledgement key.",
            ),
        ],
    ),
    (
        "Appended",
        "What was appended is durable.",
        &[
            VERSION,
            (
                1,
                "acknowledgements",
                Kind::ListOf("SignedAcknowledgement"),
                false,
                "One for each entry, in order.",
            ),
        ],
    ),
    (
        "FoundAccount",
        "The account of a root key.",
        &[
            VERSION,
            (1, "account", Kind::Bytes(16), false, "The account."),
        ],
    ),
    (
        "ChainPage",
        "A part of a chain.",
        &[
            VERSION,
            (
                1,
                "records",
                Kind::ListOf("Record"),
                false,
                "From the asked place on, as many as fit.",
            ),
            (
                2,
                "length",
                Kind::Number,
                false,
                "How many entries the chain has.",
            ),
        ],
    ),
    (
        "AppendChain",
        "Statements for the end of a chain.",
        &[
            VERSION,
            (
                1,
                "after",
                Kind::Bytes(32),
                false,
                "The link that the chain ends with now.",
            ),
            (
                2,
                "records",
                Kind::ListOf("Record"),
                false,
                "What to append, all signed by the caller.",
            ),
        ],
    ),
    (
        "HeadReply",
        "A vault's head.",
        &[
            VERSION,
            (
                1,
                "head",
                Kind::Of("SignedHead"),
                true,
                "Absent for a vault that was never written.",
            ),
        ],
    ),
    (
        "SwapHead",
        "A move of a head.",
        &[
            VERSION,
            (
                1,
                "expected",
                Kind::Bytes(32),
                true,
                "Hash of the head that has to be there now.",
            ),
            (2, "head", Kind::Of("SignedHead"), false, "The new head."),
            (
                3,
                "rescued",
                Kind::ListOfBytes(32, RESCUED_MAX),
                true,
                "Objects that an earlier head condemned and that this one needs; absent for none.",
            ),
        ],
    ),
    (
        "SignedHead",
        "A head, signed by the device that moved it.",
        &[
            (
                0,
                "head",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the head.",
            ),
            (
                1,
                "signature",
                Kind::Bytes(64),
                false,
                "Ed25519, by the device.",
            ),
        ],
    ),
    (
        "HasObjects",
        "Which of these are stored?",
        &[
            VERSION,
            (
                1,
                "objects",
                Kind::ListOfBytes(32, HAS_MAX_IDS),
                false,
                "At most 1,024 names.",
            ),
        ],
    ),
    (
        "HasReply",
        "Which are stored.",
        &[
            VERSION,
            (
                1,
                "stored",
                Kind::ListOfFlags,
                false,
                "One answer for each name, in order.",
            ),
            (
                2,
                "condemned",
                Kind::ListOfFlags,
                true,
                "Which of them are condemned, in the same order; absent for none.",
            ),
        ],
    ),
    (
        "ListedObject",
        "A stored object.",
        &[
            (0, "object", Kind::Bytes(32), false, "Its name."),
            (1, "bytes", Kind::Number, false, "Its size in bytes."),
        ],
    ),
    (
        "ObjectPage",
        "A part of a vault's objects.",
        &[
            VERSION,
            (
                1,
                "objects",
                Kind::ListOf("ListedObject"),
                false,
                "In ascending order of name.",
            ),
            (2, "more", Kind::Flag, false, "Whether more follow."),
        ],
    ),
    (
        "RunsPage",
        "A part of the heads of a write-only device's vault.",
        &[
            VERSION,
            (
                1,
                "heads",
                Kind::ListOf("SignedHead"),
                false,
                "By counter, without a gap.",
            ),
            (2, "more", Kind::Flag, false, "Whether more follow."),
        ],
    ),
    (
        "LinkMessage",
        "A message of a link.",
        &[
            VERSION,
            (
                1,
                "place",
                Kind::Number,
                false,
                "Which message: 0 request, 1 answer, 2 opening, 3 verdict.",
            ),
            (
                2,
                "sealed",
                Kind::Bytes(0),
                false,
                "The message, sealed for the other side; at most 8 KiB.",
            ),
        ],
    ),
    (
        "LinkReply",
        "The messages of a link.",
        &[
            VERSION,
            (
                1,
                "messages",
                Kind::ListOf("LinkEntry"),
                false,
                "One for each place, in order.",
            ),
        ],
    ),
    (
        "LinkEntry",
        "One place of a link.",
        &[(
            0,
            "sealed",
            Kind::Bytes(0),
            true,
            "What was left there, if anything was.",
        )],
    ),
    (
        "ErasureReply",
        "The receipt of an erasure.",
        &[
            VERSION,
            (
                1,
                "erasure",
                Kind::Of("SignedErasure"),
                false,
                "What the cell signed.",
            ),
            (
                2,
                "salt",
                Kind::Bytes(32),
                false,
                "Opens the commitment in the log.",
            ),
        ],
    ),
    (
        "SignedErasure",
        "An erasure, signed by the cell.",
        &[
            (
                0,
                "erasure",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the erasure.",
            ),
            (
                1,
                "signature",
                Kind::Bytes(64),
                false,
                "Ed25519, by the cell's acknowledgement key.",
            ),
        ],
    ),
    (
        "StateReply",
        "An account's entry in the state map.",
        &[
            VERSION,
            (
                1,
                "map_version",
                Kind::Number,
                false,
                "Version of the map; 0 before the first.",
            ),
            (
                2,
                "index",
                Kind::Number,
                false,
                "Place in the log of the entry with its root.",
            ),
            (
                3,
                "state",
                Kind::Bytes(0),
                true,
                "Canonical bytes of the account's state; absent if it has no entry.",
            ),
            (
                4,
                "proof",
                Kind::Bytes(0),
                false,
                "Canonical bytes of the proof of presence or absence.",
            ),
        ],
    ),
    (
        "ErrorReply",
        "Why a request was not done.",
        &[
            VERSION,
            (1, "code", Kind::Number, false, "See `x-candor-errors`."),
            (
                2,
                "time",
                Kind::Number,
                false,
                "The cell's time, UTC milliseconds since 1970.",
            ),
            (
                3,
                "used_bytes",
                Kind::Number,
                true,
                "Bytes in use, with OverQuota.",
            ),
            (
                4,
                "quota_bytes",
                Kind::Number,
                true,
                "Bytes allowed, with OverQuota.",
            ),
        ],
    ),
];
