//! The cluster's certificate authority and what it issues.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use gantry_env::Env;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

use crate::credential::{Credential, Facts, certificates};
use crate::{PkiError, files, tls};

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Ten years, as kubeadm's CA has it.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * DAY_SECONDS);
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * DAY_SECONDS);
/// A certificate is valid from a little before it was made: the clocks of two hosts are never quite one.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
const CSR_MAX_BYTES: usize = 64 << 10;

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    Both,
}

/// Whom a certificate names, for which addresses, for what and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The user, for clients.
    pub common_name: String,
    /// The group, for clients.
    pub organization: Option<String>,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    pub usage: Usage,
    pub lifetime: Duration,
}

impl Profile {
    pub fn client(user: &str, group: Option<&str>) -> Profile {
        Profile {
            common_name: user.to_owned(),
            organization: group.map(str::to_owned),
            names: Vec::new(),
            usage: Usage::Client,
            lifetime: LEAF_LIFETIME,
        }
    }

    pub fn server(common_name: &str, names: impl IntoIterator<Item = impl Into<String>>) -> Profile {
        Profile {
            common_name: common_name.to_owned(),
            organization: None,
            names: names.into_iter().map(Into::into).collect(),
            usage: Usage::Server,
            lifetime: LEAF_LIFETIME,
        }
    }

    pub fn in_group(mut self, group: &str) -> Profile {
        self.organization = Some(group.to_owned());
        self
    }

    /// Whether a certificate with these facts still says what the profile asks.
    fn is_met_by(&self, facts: &Facts) -> bool {
        let mut names: Vec<String> = self.names.iter().map(|name| canonical(name)).collect();
        names.sort();
        names.dedup();
        facts.common_name == self.common_name
            && facts.organizations.as_slice() == self.organization.as_slice()
            && facts.names == names
    }

    fn params(&self, env: &Env) -> Result<CertificateParams, PkiError> {
        let mut names: Vec<String> = self.names.iter().map(|name| canonical(name)).collect();
        names.sort();
        names.dedup();
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| PkiError::Name { name })?),
            });
        }
        params.distinguished_name = subject(&self.common_name, self.organization.as_deref());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        stamp(&mut params, self.lifetime, env)?;
        Ok(params)
    }
}

/// Addresses in the one form that a certificate gives back.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |ip| ip.to_string())
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn stamp(params: &mut CertificateParams, lifetime: Duration, env: &Env) -> Result<(), PkiError> {
    let now: Timestamp = env.clock.now();
    let seconds = now.as_second();
    let since_epoch = u64::try_from(seconds).map_err(|_| PkiError::Time { seconds })?;
    let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(since_epoch.saturating_sub(BACKDATE.as_secs()));
    params.not_after = at(since_epoch + lifetime.as_secs());
    let mut serial = [0_u8; 16];
    env.rng.fill(&mut serial);
    // RFC 5280 wants a positive number of at most 20 octets, and not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

/// A certificate authority: its certificate, and the key that signs.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("facts", &self.facts().ok()).finish_non_exhaustive()
    }
}

fn cannot(doing: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { doing, source }
}

impl Authority {
    pub fn create(common_name: &str, env: &Env) -> Result<Authority, PkiError> {
        let key = KeyPair::generate().map_err(cannot("make the CA's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        stamp(&mut params, CA_LIFETIME, env)?;
        let certificate = params.self_signed(&key).map_err(cannot("sign the CA's own certificate"))?;
        Authority::from_pem(certificate.pem(), key.serialize_pem())
    }

    pub fn from_pem(certificate_pem: String, key_pem: String) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pem(&key_pem).map_err(cannot("read the CA's key"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(cannot("read the CA's certificate"))?;
        let authority = Authority { certificate_pem, key_pem, issuer };
        // The key must be the certificate's own, or everything issued would be worthless.
        Credential { certificate_pem: authority.certificate_pem.clone(), key_pem: authority.key_pem.clone() }
            .certified()?;
        Ok(authority)
    }

    /// Reads `ca.crt` and `ca.key` from `folder`, or makes them. The key is written first: a certificate without a key
    /// is damage and refused, a key without a certificate is a start that was cut short, and made anew.
    pub fn load_or_create(folder: &Path, common_name: &str, env: &Env) -> Result<Authority, PkiError> {
        let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        match (files::read(&certificate_path)?, files::read(&key_path)?) {
            (Some(certificate), Some(key)) => Authority::from_pem(certificate, key),
            (Some(_), None) => Err(PkiError::KeyMissing { path: certificate_path, missing: key_path }),
            (None, _) => {
                let authority = Authority::create(common_name, env)?;
                files::write_private(&key_path, authority.key_pem.as_bytes())?;
                files::write_private(&certificate_path, authority.certificate_pem.as_bytes())?;
                Ok(authority)
            }
        }
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn facts(&self) -> Result<Facts, PkiError> {
        let chain = certificates(&self.certificate_pem)?;
        Facts::of(chain.first().ok_or(PkiError::Pem { wanted: "a certificate" })?)
    }

    /// No certificate outlives the authority that vouches for it.
    fn within_own_life(&self, profile: &Profile, env: &Env) -> Result<Profile, PkiError> {
        let left = self.facts()?.not_after.as_second() - env.clock.now().as_second();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        Ok(Profile { lifetime: profile.lifetime.min(left), ..profile.clone() })
    }

    /// A new key and its certificate.
    pub fn issue(&self, profile: &Profile, env: &Env) -> Result<Credential, PkiError> {
        let key = KeyPair::generate().map_err(cannot("make a key"))?;
        let profile = self.within_own_life(profile, env)?;
        let certificate = profile.params(env)?.signed_by(&key, &self.issuer).map_err(cannot("sign a certificate"))?;
        Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs somebody else's key. Only the public key is taken from the request, whose own signature must hold: names
    /// and usages are the caller's to grant, by `profile`.
    pub fn sign(&self, request_pem: &str, profile: &Profile, env: &Env) -> Result<String, PkiError> {
        if request_pem.len() > CSR_MAX_BYTES {
            return Err(PkiError::Pem { wanted: "a certificate signing request of bearable size" });
        }
        let mut request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(cannot("read a signing request"))?;
        request.params = self.within_own_life(profile, env)?.params(env)?;
        Ok(request.signed_by(&self.issuer).map_err(cannot("sign a request"))?.pem())
    }

    /// The credential at `path`, if it is the profile's, this CA's, and not near its end; else a new one, written there.
    pub fn load_or_issue(&self, path: &Path, profile: &Profile, env: &Env) -> Result<Credential, PkiError> {
        match Credential::load(path) {
            Ok(Some(found)) if self.vouches_for(&found, profile, env.clock.now()) => return Ok(found),
            // What is there is of no use, and a new one is as good: only a file that cannot be reached stops us.
            Ok(_) | Err(PkiError::Pem { .. }) => {}
            Err(error) => return Err(error),
        }
        let credential = self.issue(profile, env)?;
        credential.store(path)?;
        Ok(credential)
    }

    fn vouches_for(&self, credential: &Credential, profile: &Profile, now: Timestamp) -> bool {
        let Ok(facts) = credential.facts() else { return false };
        facts.is_valid_at(now)
            && !facts.needs_renewal(now)
            && profile.is_met_by(&facts)
            && credential.certified().is_ok()
            && self.signed(credential)
    }

    fn signed(&self, credential: &Credential) -> bool {
        let (Ok(roots), Ok(chain)) = (certificates(&self.certificate_pem), certificates(&credential.certificate_pem))
        else {
            return false;
        };
        tls::is_signed_by(&chain[0], &roots[0])
    }
}

/// A key and a signing request for it: what a joining node sends.
pub fn request(common_name: &str, organization: Option<&str>) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(cannot("make a key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, organization);
    let request = params.serialize_request(&key).map_err(cannot("make a signing request"))?;
    Ok((key.serialize_pem(), request.pem().map_err(cannot("write a signing request"))?))
}
