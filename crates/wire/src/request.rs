//! Request signatures: HTTP Message Signatures (RFC 9421) with Ed25519, the small part that is used.
//!
//! 1. The device covers method, authority, path, query, its own id, its authority (grant or errand),
//!    the placement epoch and, unless the body is an object, the body's digest (RFC 9530). An
//!    object's name is its hash and stands in the path, so the path covers that body.
//! 2. `created` and `nonce` make a request unrepeatable: the cell refuses clocks that differ by more
//!    than 300 s and remembers nonces for 600 s.
//! 3. There is nothing to negotiate: the list of components, the algorithm and the tag are fixed. A
//!    signature input in any other spelling is refused before a key is looked up.

use base64::Engine as _;
use sha2::Digest as _;

use crate::ids::{DeviceId, RequestNonce};
use crate::limits::REQUEST_SKEW_SECONDS;
use crate::sign::{Ed25519Public, Ed25519Secret, Ed25519Signature};

/// Names the signing device; `root` for the account's root key.
pub const HEADER_DEVICE: &str = "candor-device";
/// Names the authority: `grant <id>` or `errand <token>`.
pub const HEADER_AUTHORITY: &str = "candor-authority";
/// The placement epoch of the account, as the device knows it.
pub const HEADER_PLACEMENT: &str = "candor-placement";
/// RFC 9530.
pub const HEADER_DIGEST: &str = "content-digest";
/// RFC 9421.
pub const HEADER_SIGNATURE_INPUT: &str = "signature-input";
/// RFC 9421.
pub const HEADER_SIGNATURE: &str = "signature";

/// The placement epoch of an account that was never moved.
pub const FIRST_PLACEMENT: u64 = 1;

/// Longest accepted value of one of these headers, in bytes.
pub const HEADER_MAX_BYTES: usize = 1024;

const TAG: &str = "candor-request-1";

/// What a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Covered<'a> {
    /// In capital letters.
    pub method: &'a str,
    /// The cell's authority, see [`crate::cell::authority`].
    pub authority: &'a str,
    /// As sent.
    pub path: &'a str,
    /// Without the question mark; empty if there is none.
    pub query: &'a str,
    /// Value of [`HEADER_DEVICE`].
    pub device: &'a str,
    /// Value of [`HEADER_AUTHORITY`].
    pub authorization: &'a str,
    /// Value of [`HEADER_PLACEMENT`].
    pub placement: &'a str,
    /// Value of [`HEADER_DIGEST`]; `None` exactly when the body is an object or there is none.
    pub digest: Option<&'a str>,
}

/// The two header values of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// Value of [`HEADER_SIGNATURE_INPUT`].
    pub input: String,
    /// Value of [`HEADER_SIGNATURE`].
    pub signature: String,
}

/// A request's signature is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The headers are missing or not in the one accepted form.
    #[error("the request's signature headers are not in the expected form")]
    Form,
    /// It does not verify.
    #[error("the request's signature is not valid")]
    Signature,
    /// Made too long ago, or in the future.
    #[error(
        "the request's time differs from the cell's by more than {REQUEST_SKEW_SECONDS} seconds"
    )]
    Time,
    /// The body is not the one that was signed.
    #[error("the request's body is not the one that was signed")]
    Digest,
}

/// What a verified signature tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Seconds since 1970, by the signer's clock.
    pub created: i64,
    /// To be remembered.
    pub nonce: RequestNonce,
}

/// The value of [`HEADER_DIGEST`] for a body.
pub fn content_digest(body: &[u8]) -> String {
    let digest = sha2::Sha256::digest(body);
    format!(
        "sha-256=:{}:",
        base64::engine::general_purpose::STANDARD.encode(digest)
    )
}

/// Checks a body against the value of [`HEADER_DIGEST`].
pub fn check_digest(value: &str, body: &[u8]) -> Result<(), RequestError> {
    if content_digest(body) == value {
        Ok(())
    } else {
        Err(RequestError::Digest)
    }
}

/// The value of [`HEADER_DEVICE`].
pub fn device_header(signer: Option<&DeviceId>) -> String {
    signer.map_or_else(|| "root".to_owned(), DeviceId::to_string)
}

/// Reads the value of [`HEADER_DEVICE`].
pub fn parse_device_header(value: &str) -> Result<Option<DeviceId>, RequestError> {
    if value == "root" {
        Ok(None)
    } else {
        value.parse().map(Some).map_err(|_| RequestError::Form)
    }
}

/// A signature base (RFC 9421 §2.5): one line for each component, then the parameters.
fn signature_base<'a>(
    components: impl Iterator<Item = (&'a str, &'a str)>,
    parameters: &str,
) -> String {
    let mut base = String::with_capacity(512);
    for (name, value) in components {
        base.push('"');
        base.push_str(name);
        base.push_str("\": ");
        base.push_str(value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(parameters);
    base
}

/// The parameters for a list of components (RFC 9421 §2.3).
fn signature_parameters(components: &[&str], parameters: &str) -> String {
    let mut out = String::from("(");
    for (i, name) in components.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push('"');
        out.push_str(name);
        out.push('"');
    }
    out.push(')');
    out.push_str(parameters);
    out
}

fn base_of(covered: &Covered<'_>, created: i64, nonce: &RequestNonce) -> (String, String) {
    let query = format!("?{}", covered.query);
    let mut components = vec![
        ("@method", covered.method),
        ("@authority", covered.authority),
        ("@path", covered.path),
        ("@query", query.as_str()),
        (HEADER_DEVICE, covered.device),
        (HEADER_AUTHORITY, covered.authorization),
        (HEADER_PLACEMENT, covered.placement),
    ];
    if let Some(digest) = covered.digest {
        components.push((HEADER_DIGEST, digest));
    }
    let names: Vec<&str> = components.iter().map(|(name, _)| *name).collect();
    let parameters = signature_parameters(
        &names,
        &format!(
            ";created={created};nonce=\"{nonce}\";keyid=\"{}\";alg=\"ed25519\";tag=\"{TAG}\"",
            covered.device
        ),
    );
    let base = signature_base(components.into_iter(), &parameters);
    (parameters, base)
}

/// Signs a request.
pub fn sign(
    covered: &Covered<'_>,
    created: i64,
    nonce: &RequestNonce,
    key: &Ed25519Secret,
) -> SignatureHeaders {
    let (parameters, base) = base_of(covered, created, nonce);
    let signature = key.sign_raw(base.as_bytes());
    let encoded = base64::engine::general_purpose::STANDARD.encode(signature.as_bytes());
    SignatureHeaders {
        input: format!("candor={parameters}"),
        signature: format!("candor=:{encoded}:"),
    }
}

/// Reads `created` and `nonce` out of a signature input, trusting nothing else of it.
fn claims(input: &str) -> Option<(i64, RequestNonce)> {
    let (_, after) = input.split_once(";created=")?;
    let (created, after) = after.split_once(";nonce=\"")?;
    let (nonce, _) = after.split_once('"')?;
    Some((created.parse().ok()?, nonce.parse().ok()?))
}

/// Checks a request's signature and its time against `now_seconds`. The caller remembers the nonce.
pub fn verify(
    covered: &Covered<'_>,
    headers: &SignatureHeaders,
    now_seconds: i64,
    key: &Ed25519Public,
) -> Result<Verified, RequestError> {
    let longest = headers.input.len().max(headers.signature.len());
    if longest > HEADER_MAX_BYTES {
        return Err(RequestError::Form);
    }
    let (created, nonce) = claims(&headers.input).ok_or(RequestError::Form)?;
    let (parameters, base) = base_of(covered, created, &nonce);
    // Whatever was read out of the input has to give back the very same input.
    if headers.input.strip_prefix("candor=") != Some(parameters.as_str()) {
        return Err(RequestError::Form);
    }
    let encoded = headers
        .signature
        .strip_prefix("candor=:")
        .and_then(|rest| rest.strip_suffix(':'));
    let bytes =
        encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let signature: [u8; 64] = bytes
        .and_then(|b| b.try_into().ok())
        .ok_or(RequestError::Form)?;
    key.verify_raw(base.as_bytes(), &Ed25519Signature::from_bytes(signature))
        .map_err(|_| RequestError::Signature)?;
    if now_seconds.abs_diff(created) > REQUEST_SKEW_SECONDS.unsigned_abs() {
        return Err(RequestError::Time);
    }
    Ok(Verified { created, nonce })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// RFC 9421, appendix B.2.6: the signature base and the Ed25519 signature over it.
    #[test]
    fn rfc_9421_b_2_6() {
        let components = [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@method", "POST"),
            ("@path", "/foo"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
            ("content-length", "18"),
        ];
        let names = components.map(|(name, _)| name);
        let parameters =
            signature_parameters(&names, ";created=1618884473;keyid=\"test-key-ed25519\"");
        assert_eq!(
            parameters,
            "(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
             ;created=1618884473;keyid=\"test-key-ed25519\""
        );
        let base = signature_base(components.into_iter(), &parameters);
        // The key of appendix B.1.4, out of its PEM forms.
        let seed: [u8; 32] = base64::engine::general_purpose::STANDARD
            .decode("n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=")
            .unwrap()
            .try_into()
            .unwrap();
        let public: [u8; 32] = base64::engine::general_purpose::STANDARD
            .decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
            .unwrap()
            .try_into()
            .unwrap();
        let expected: [u8; 64] = base64::engine::general_purpose::STANDARD
            .decode("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==")
            .unwrap()
            .try_into()
            .unwrap();
        let key = Ed25519Secret::from_seed(&seed);
        assert_eq!(key.public().as_bytes(), &public);
        assert_eq!(key.sign_raw(base.as_bytes()).as_bytes(), &expected);
        key.public()
            .verify_raw(base.as_bytes(), &Ed25519Signature::from_bytes(expected))
            .unwrap();
    }

    fn covered() -> Covered<'static> {
        Covered {
            method: "PUT",
            authority: "00.cell.invalid",
            path: "/v1/x",
            query: "after=1",
            device: "000102030405060708090a0b0c0d0e0f",
            authorization: "grant 00",
            placement: "1",
            digest: Some("sha-256=:AA==:"),
        }
    }

    #[test]
    fn every_component_is_covered() {
        let key = Ed25519Secret::from_seed(&[7; 32]);
        let nonce = RequestNonce::from_bytes([9; 16]);
        let headers = sign(&covered(), 1_000, &nonce, &key);
        let check = |covered: Covered<'_>, now| verify(&covered, &headers, now, &key.public());
        assert_eq!(
            check(covered(), 1_300),
            Ok(Verified {
                created: 1_000,
                nonce
            })
        );
        assert_eq!(check(covered(), 1_301), Err(RequestError::Time));
        assert_eq!(check(covered(), 699), Err(RequestError::Time));
        let changed = [
            Covered {
                method: "GET",
                ..covered()
            },
            Covered {
                authority: "01.cell.invalid",
                ..covered()
            },
            Covered {
                path: "/v1/y",
                ..covered()
            },
            Covered {
                query: "after=2",
                ..covered()
            },
            Covered {
                authorization: "grant 01",
                ..covered()
            },
            Covered {
                placement: "2",
                ..covered()
            },
            Covered {
                digest: Some("sha-256=:AB==:"),
                ..covered()
            },
        ];
        for one in changed {
            assert_eq!(check(one, 1_000), Err(RequestError::Signature), "{one:?}");
        }
        // These change the input itself, not only the base.
        for one in [
            Covered {
                device: "root",
                ..covered()
            },
            Covered {
                digest: None,
                ..covered()
            },
        ] {
            assert_eq!(check(one, 1_000), Err(RequestError::Form), "{one:?}");
        }
    }

    #[test]
    fn only_one_spelling_of_the_input_is_accepted() {
        let key = Ed25519Secret::from_seed(&[7; 32]);
        let nonce = RequestNonce::from_bytes([9; 16]);
        let good = sign(&covered(), 1_000, &nonce, &key);
        let spellings = [
            good.input.replace("created=1000", "created=01000"),
            good.input.replace("candor=", "sig1="),
            good.input.replace(";alg=\"ed25519\"", ""),
            good.input.replace(TAG, "other"),
            format!("{} ", good.input),
            String::new(),
            "x".repeat(HEADER_MAX_BYTES + 1),
        ];
        for input in spellings {
            let headers = SignatureHeaders {
                input,
                signature: good.signature.clone(),
            };
            assert_eq!(
                verify(&covered(), &headers, 1_000, &key.public()),
                Err(RequestError::Form)
            );
        }
        let other = Ed25519Secret::from_seed(&[8; 32]);
        assert_eq!(
            verify(&covered(), &good, 1_000, &other.public()),
            Err(RequestError::Signature)
        );
    }

    /// docs/formats/api.md: 1,024 bytes. The name of the device alone makes the input longer here.
    #[test]
    fn a_header_has_a_longest_length() {
        let key = Ed25519Secret::from_seed(&[7; 32]);
        let nonce = RequestNonce::from_bytes([9; 16]);
        let outcome = |name_bytes: usize| {
            let device = "d".repeat(name_bytes);
            let covered = Covered {
                device: &device,
                ..covered()
            };
            let headers = sign(&covered, 1_000, &nonce, &key);
            let verified = verify(&covered, &headers, 1_000, &key.public());
            (headers.input.len(), verified.map(|verified| verified.nonce))
        };
        let (without_name, _) = outcome(0);
        let longest = 1_024 - without_name;
        assert_eq!(outcome(longest), (1_024, Ok(nonce)));
        assert_eq!(outcome(longest + 1), (1_025, Err(RequestError::Form)));
    }

    #[test]
    fn a_signer_is_a_device_or_the_root() {
        let device = DeviceId::from_bytes([0x0a; 16]);
        let hexadecimal = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
        assert_eq!(device_header(Some(&device)), hexadecimal);
        assert_eq!(device_header(None), "root");
        assert_eq!(parse_device_header(hexadecimal), Ok(Some(device)));
        assert_eq!(parse_device_header("root"), Ok(None));
        for wrong in ["", "Root", "0a", &hexadecimal.to_uppercase()] {
            assert_eq!(parse_device_header(wrong), Err(RequestError::Form));
        }
    }

    #[test]
    fn digests_name_their_body() {
        let value = content_digest(b"body");
        // The form of RFC 9530; the hash by another program.
        assert_eq!(
            value,
            "sha-256=:Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU=:"
        );
        assert_eq!(check_digest(&value, b"body"), Ok(()));
        assert_eq!(check_digest(&value, b"bodY"), Err(RequestError::Digest));
    }
}
