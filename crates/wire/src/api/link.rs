//! Bodies of the endpoints over which a new device is taken in ([`crate::linking`]).

use super::{BODY_MAX_BYTES, Canonical};

/// Request of [`super::EndpointId::PutLinkMessage`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LinkMessage {
    /// Always [`super::API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Which message, below [`crate::linking::LINK_MESSAGES`].
    #[n(1)]
    pub place: u8,
    /// At most [`crate::linking::LINK_MESSAGE_MAX_BYTES`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}
body!(LinkMessage, "a message of a link");

/// One place of a link.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LinkEntry {
    /// What was left there, if anything was.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Option<Vec<u8>>,
}

/// Reply of [`super::EndpointId::ReadLink`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LinkReply {
    /// Always [`super::API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// One for each place, in order.
    #[n(1)]
    pub messages: Vec<LinkEntry>,
}
body!(LinkReply, "the messages of a link");
