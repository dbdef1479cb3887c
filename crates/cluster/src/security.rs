//! Who may talk on the peer port: TLS 1.3, and a proof that both sides belong together.
//!
//! With a **join secret** every process makes a certificate of its own at start, which proves nothing; what counts is
//! a MAC with the secret over the session's exported keying material (RFC 8446, 7.5) and the hello. Somebody in the
//! middle has two sessions with different material, so a proof that is passed on is wrong. The secret never
//! goes over the wire. With **mTLS** both sides show certificates of the operator's CA, and there is no secret.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// A shorter secret could be guessed from a recorded proof.
const SECRET_BYTES_MIN: usize = 16;

/// What every node of a cluster is given and nobody else has. Never printed.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why the peer port can't be secured.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The secret could be guessed.
    #[error(
        "the join secret has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed: `openssl rand -hex 16` makes one"
    )]
    ShortSecret {
        /// Its length.
        bytes: usize,
    },
    /// A certificate, a key or a CA is not what it should be.
    #[error("{what}: {reason}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Secret {
    /// A secret; white space around it (a file's last newline) is not part of it.
    pub fn new(bytes: &[u8]) -> Result<Secret, SecurityError> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(SecurityError::ShortSecret { bytes: bytes.len() });
        }
        Ok(Secret(bytes.into()))
    }
}

/// How the peer port is secured; made once at start.
#[derive(Clone)]
pub struct Security {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    /// `None`: certificates prove everything.
    key: Option<hmac::Key>,
}

/// Which side proves; so that a proof can't be sent back to whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Security {
    /// Both sides know a secret.
    pub fn with_secret(secret: &Secret) -> Result<Security, SecurityError> {
        let made = rcgen::generate_simple_self_signed(["bellrock".to_owned()]);
        let made = made.map_err(|e| certificate("make a certificate", e))?;
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|e| certificate("make a certificate", e))?;
        let provider = provider();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| certificate("TLS 1.3", e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| certificate("a certificate of its own", e))?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| certificate("TLS 1.3", e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ProvedByTheHello(provider)))
            .with_no_client_auth();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        Ok(Security { client: Arc::new(client), server: Arc::new(server), key: Some(key) })
    }

    /// Both sides show certificates that this CA has signed; all in PEM. The server's must name the host it is reached at.
    pub fn with_certificates(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Security, SecurityError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(ca) {
            let authority = authority.map_err(|e| certificate("the CA's certificate (peer.ca-file)", e))?;
            roots.add(authority).map_err(|e| certificate("the CA's certificate (peer.ca-file)", e))?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|e| certificate("the certificate (peer.cert-file)", e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| certificate("the key (peer.key-file)", e))?;
        let (provider, roots) = (provider(), Arc::new(roots));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let verifier = verifier.map_err(|e| certificate("the CA's certificate (peer.ca-file)", e))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| certificate("TLS 1.3", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| certificate("the certificate (peer.cert-file)", e))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| certificate("TLS 1.3", e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| certificate("the certificate (peer.cert-file)", e))?;
        Ok(Security { client: Arc::new(client), server: Arc::new(server), key: None })
    }

    /// A side's proof for this session and this hello; 32 bytes, or none with certificates.
    pub(crate) fn prove(&self, side: Side, exported: &[u8; 32], hello: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return Vec::new() };
        hmac::sign(key, &proven(side, exported, hello)).as_ref().to_vec()
    }

    /// Whether a proof is right; in constant time.
    pub(crate) fn is_proven(&self, side: Side, exported: &[u8; 32], hello: &[u8], proof: &[u8]) -> bool {
        match &self.key {
            None => proof.is_empty(),
            Some(key) => hmac::verify(key, &proven(side, exported, hello), proof).is_ok(),
        }
    }
}

fn proven(side: Side, exported: &[u8; 32], hello: &[u8]) -> Vec<u8> {
    let side: &[u8] = match side {
        Side::Client => b"bellrock peer client 1",
        Side::Server => b"bellrock peer server 1",
    };
    [side, exported, hello].concat()
}

fn certificate(what: &'static str, error: impl fmt::Display) -> SecurityError {
    SecurityError::Certificate { what, reason: error.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes any certificate, but holds its owner to it: who it is the hello proves.
#[derive(Debug)]
struct ProvedByTheHello(Arc<CryptoProvider>);

impl ServerCertVerifier for ProvedByTheHello {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
