//! The certificate authority: P-256 throughout, because browsers refuse Ed25519.

use std::path::Path;
use std::time::Duration;

use fleetloop_protocol::keys::{PublicKey, random_bytes};
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};

use super::{PkiError, life, read, write};
use crate::durable::Access;

/// The common name of the hub's own MQTT client; no device is ever called so.
pub const HUB_CLIENT: &str = "hub";

/// What the alternative name of a device's certificate that holds its signing key begins with; 64
/// hexadecimal digits follow. A hub that lost a device's row knows the key by this.
pub const SIGNING_KEY_URI: &str = "urn:fleetloop:signing-key:";

/// How long the CA is good for, in days: ten years.
const CA_DAYS: u64 = 3650;

/// How long the hub's own certificates are good for, in days.
pub const OWN_DAYS: u64 = 730;

/// A P-256 public key, uncompressed (SEC 1, 2.3.3), in bytes.
const P256_POINT_BYTES: usize = 65;

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the CA's.
    pub pem: String,
    /// When it ends.
    pub ends: UnixMillis,
}

/// The CA's certificate and key.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a CA and writes `<name>.pem` and `<name>.key` into `folder`. Its subject is its own, so
    /// that a certificate says which of two signed it.
    pub(super) fn create(folder: &Path, name: &str, now: UnixMillis) -> Result<(), PkiError> {
        let failed = |source| PkiError::Certificate { what: "make the CA".into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let own = random_bytes::<4>()
            .map_err(|source| PkiError::Key { path: "certificate authority".into(), source })?;
        let subject = format!("Fleetloop hub CA {:08x}", u32::from_be_bytes(own));
        let mut params = params(&subject, UnixMillis(0), now, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        // A cut here leaves a key without a certificate, which nobody reads.
        write(&folder.join(format!("{name}.key")), key.serialize_pem().as_bytes(), Access::Owner)?;
        let pem = folder.join(format!("{name}.pem"));
        write(&pem, certificate.pem().as_bytes(), Access::Everybody)
    }

    /// Reads the CA of that name in `folder`.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Certificate {
            what: format!("use the CA in {}; restore it from a backup", folder.display()),
            source,
        };
        let text =
            |file: &str| Ok(String::from_utf8_lossy(&read(&folder.join(file))?).into_owned());
        let pem: String = text(&format!("{name}.pem"))?;
        let key: String = text(&format!("{name}.key"))?;
        let key = KeyPair::from_pem(&key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(failed)?;
        Ok(Self { pem, issuer })
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When the CA's certificate ends.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn ends(&self) -> Result<UnixMillis, PkiError> {
        life::ends(self.pem.as_bytes()).map_err(unreadable)
    }

    /// Whether this CA signed the first certificate in `pem`, by the issuer that it names.
    pub fn issued(&self, pem: &str) -> bool {
        life::issuer(pem.as_bytes()).is_ok_and(|issuer| {
            life::subject(self.pem.as_bytes()).is_ok_and(|subject| subject == issuer)
        })
    }

    /// A fresh key and the server certificate for these names and addresses, the first of which it
    /// is called by, with the CA's: PEM.
    pub(super) fn server(&self, names: &[String], now: UnixMillis) -> Result<String, PkiError> {
        let name = names.first().map_or("hub", String::as_str);
        let mut params = params(name, UnixMillis(0), now, OWN_DAYS)?;
        let with_names = CertificateParams::new(names)
            .map_err(|source| PkiError::Certificate { what: format!("certify {name}"), source })?;
        params.subject_alt_names = with_names.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.with_fresh_key(&params)
    }

    /// A fresh key and the certificate of the hub's own MQTT client, with the CA's: PEM.
    pub(super) fn hub_client(&self, now: UnixMillis) -> Result<String, PkiError> {
        let mut params = params(HUB_CLIENT, UnixMillis(0), now, OWN_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.with_fresh_key(&params)
    }

    /// The certificate, good for `days`, for `device` and the key that `csr_pem` proves to hold.
    /// Nothing else of the request counts: name, usage and dates are the hub's.
    ///
    /// # Errors
    /// [`PkiError::Request`] when the request is no proof, or its key is not P-256.
    pub fn device(
        &self,
        device: &DeviceId,
        signing_key: &PublicKey,
        csr_pem: &str,
        now: UnixMillis,
        days: u32,
    ) -> Result<Issued, PkiError> {
        let public_key = request_key(csr_pem)?;
        // A day back, for a hub whose clock is set back a little afterwards.
        let from = UnixMillis(now.0.saturating_sub(24 * 3600 * 1000));
        let mut params = params(device.as_str(), from, now, days.into())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("{SIGNING_KEY_URI}{}", Digest::from_bytes(*signing_key.as_bytes()));
        let uri = uri.try_into().map_err(|source| PkiError::Certificate {
            what: format!("certify device {device}"),
            source,
        })?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let certificate = params.signed_by(&public_key, &self.issuer).map_err(|source| {
            PkiError::Certificate { what: format!("certify device {device}"), source }
        })?;
        let ends_s = u64::try_from(params.not_after.unix_timestamp()).unwrap_or(0);
        Ok(Issued { pem: certificate.pem() + &self.pem, ends: UnixMillis(ends_s * 1000) })
    }

    fn with_fresh_key(&self, params: &CertificateParams) -> Result<String, PkiError> {
        let failed = |source| PkiError::Certificate { what: "certify the hub".into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(key.serialize_pem() + &certificate.pem() + &self.pem)
    }
}

/// The P-256 key that a request (PKCS#10, RFC 2986) proves to hold, as its uncompressed point.
///
/// # Errors
/// [`PkiError::Request`] when it proves nothing, or the key is another kind.
pub fn request_key(csr_pem: &str) -> Result<rcgen::SubjectPublicKeyInfo, PkiError> {
    let refused = |reason: &str| PkiError::Request(reason.to_owned());
    // This verifies the request's signature by its own key.
    let request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|_| refused("its certificate request is not signed by its own key"))?;
    let key = &request.public_key;
    let is_p256 = *PublicKeyData::algorithm(key) == rcgen::PKCS_ECDSA_P256_SHA256
        && key.der_bytes().len() == P256_POINT_BYTES;
    if !is_p256 {
        return Err(refused("its certificate request must use P-256 and SHA-256"));
    }
    rcgen::SubjectPublicKeyInfo::from_der(&key.subject_public_key_info())
        .map_err(|_| refused("its certificate request must use P-256 and SHA-256"))
}

fn params(
    name: &str,
    from: UnixMillis,
    now: UnixMillis,
    days: u64,
) -> Result<CertificateParams, PkiError> {
    let serial = random_bytes::<16>()
        .map_err(|source| PkiError::Key { path: "certificate serial number".into(), source })?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = epoch + Duration::from_secs(from.0 / 1000);
    params.not_after = epoch + Duration::from_secs(now.0 / 1000 + days * 24 * 3600);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn unreadable(reason: String) -> PkiError {
    PkiError::Tls { path: "the CA's certificate".into(), source: reason.into() }
}
