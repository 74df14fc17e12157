//! The cell's identity in TLS.
//!
//! There is no certificate authority but the cell's own root key, which the invitation pins. At
//! start, and daily from then on, the root key issues a certificate for the TLS key, and signs as
//! "CN=\<cell id\>". The certificate is for the name in [`candor_wire::cell::authority`], whatever the
//! network address. TLS 1.3 only (RFC 8446), no tickets and no early data: nothing of a connection
//! can be replayed.

use std::sync::{Arc, PoisonError, RwLock};

use candor_wire::ids::CellId;
use candor_wire::time::{DAY_MS, Millis, date_of};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::keys::CellKeyFiles;
use crate::shared::Shared;

/// The only application protocol.
pub(crate) const ALPN: &[u8] = b"http/1.1";

/// How far back a certificate begins, in days: a device with a clock that is behind gets a sentence
/// about its clock from the cell, instead of a handshake that fails.
const BEFORE_DAYS: i64 = 30;

/// How long a certificate is good, in days. It is issued anew every day.
const AFTER_DAYS: i64 = 90;

/// No certificate could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("the certificate could not be issued")]
    Certificate(#[source] rcgen::Error),
    /// The library.
    #[error("TLS could not be set up")]
    Setup(#[source] rustls::Error),
}

/// The certificate in use.
pub(crate) struct Leaf(RwLock<Arc<CertifiedKey>>);

impl core::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Leaf")
    }
}

impl Leaf {
    pub(crate) fn issue(shared: &Shared) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(certified(shared)?))))
    }

    /// Puts a fresh certificate in place of the old one.
    pub(crate) fn renew(&self, shared: &Shared) -> Result<(), TlsError> {
        let fresh = Arc::new(certified(shared)?);
        // The value is replaced whole, so a poisoned lock holds a good one.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// How the cell answers handshakes.
pub(crate) fn server_config(leaf: Arc<Leaf>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(leaf);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn certified(shared: &Shared) -> Result<CertifiedKey, TlsError> {
    let keys = &shared.keys;
    let der = issue(
        keys,
        &shared.keyring.cell(),
        &shared.authority,
        shared.clock.now(),
    )
    .map_err(TlsError::Certificate)?;
    let pkcs8 = keys.tls.to_pkcs8();
    let key =
        rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .map_err(TlsError::Setup)?;
    Ok(CertifiedKey::new(vec![der], key))
}

fn issue(
    keys: &CellKeyFiles,
    cell: &CellId,
    authority: &str,
    now: Millis,
) -> Result<rustls_pki_types::CertificateDer<'static>, rcgen::Error> {
    let mut issuer_name = DistinguishedName::new();
    issuer_name.push(DnType::CommonName, cell.to_string());
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = issuer_name;
    let issuer = Issuer::new(issuer, key_pair(&keys.root.to_pkcs8())?);

    let mut leaf = CertificateParams::new(vec![authority.to_owned()])?;
    leaf.distinguished_name = DistinguishedName::new();
    set_life(&mut leaf, now);
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let issued = leaf.signed_by(&key_pair(&keys.tls.to_pkcs8())?, &issuer)?;
    Ok(issued.der().clone())
}

fn key_pair(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)
}

/// The 31st of December 9999, in days since 1970-01-01.
const LAST_DAY: i64 = 2_932_896;

/// Sets both ends of a certificate's life, to whole days (UTC).
fn set_life(leaf: &mut CertificateParams, now: Millis) {
    let day = now.0.div_euclid(DAY_MS);
    let ((from_year, from_month, from_day), (to_year, to_month, to_day)) =
        (civil(day - BEFORE_DAYS), civil(day + AFTER_DAYS));
    leaf.not_before = rcgen::date_time_ymd(from_year, from_month, from_day);
    leaf.not_after = rcgen::date_time_ymd(to_year, to_month, to_day);
}

/// The date of a day since 1970-01-01, as a certificate can name it: not before 1970, and not after 9999.
fn civil(day: i64) -> (i32, u8, u8) {
    let (year, month, day) = date_of(day.clamp(0, LAST_DAY));
    let small = |number: i64| u8::try_from(number).unwrap_or(1);
    (
        i32::try_from(year).unwrap_or(9999),
        small(month),
        small(day),
    )
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_453), (2025, 12, 31));
        assert_eq!(civil(20_454), (2026, 1, 1));
        assert_eq!(civil(-1), (1970, 1, 1));
        assert_eq!(civil(i64::MAX), (9999, 12, 31));
    }
}
