//! TLS to a server, by libpq's rules over rustls. Invariant: under `verify-ca` and `verify-full` nothing is sent to a server for which nobody vouches whom the
//! URL trusts.

use std::fs;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::postgres::address::{Encryption, Roots, SslMode};

/// What is agreed upon where TLS begins without a word before.
const PROTOCOL: &[u8] = b"postgresql";

/// Makes encrypted streams for one address.
#[derive(Clone)]
pub struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// None at all, for a socket of this machine or where nobody wants any.
    pub const OFF: Self = Self(None);

    /// As the URL asks, with the files that it names as they are now.
    ///
    /// # Errors
    /// The message for the user.
    pub fn of(encryption: &Encryption) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier {
            trust: trust(encryption, &provider)?,
            names: encryption.mode == SslMode::VerifyFull,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be used: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &encryption.certificate {
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    format!("sslkey '{}' holds no key that can be used ({error}); it must be PEM without a password", key.display())
                })?;
                config.with_client_auth_cert(chain, secret).map_err(|error| {
                    format!(
                        "sslcert '{}' and sslkey '{}' cannot be used: {error}",
                        certificate.display(),
                        key.display()
                    )
                })?
            }
            None => config.with_no_client_auth(),
        };
        if encryption.is_direct {
            config.alpn_protocols.push(PROTOCOL.to_vec());
        }
        Ok(Self(Some(Arc::new(config))))
    }
}

/// Whom we trust; none if nothing is to be checked.
fn trust(encryption: &Encryption, provider: &Arc<CryptoProvider>) -> Result<Option<Trust>, String> {
    if !matches!(encryption.mode, SslMode::VerifyCa | SslMode::VerifyFull) {
        return Ok(None);
    }
    let certificates = match &encryption.roots {
        Roots::File(path) => certificates("sslrootcert", path)?,
        Roots::System => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err("this machine trusts nobody who vouches for servers: install its CA certificates (ca-certificates), or name \
                    the server's with '?sslrootcert=PATH'"
            .to_owned());
    }
    let pinned = if encryption.roots == Roots::System { Vec::new() } else { certificates };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
        .build()
        .map_err(|error| format!("the certificates of sslrootcert cannot be used: {error}"))?;
    Ok(Some(Trust { verifier, pinned }))
}

fn certificates(word: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem =
        fs::read(path).map_err(|error| format!("{word} '{}' cannot be read: {error}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| format!("{word} '{}' holds no certificate in PEM form", path.display()))
}

#[derive(Debug)]
struct Trust {
    verifier: Arc<WebPkiServerVerifier>,
    /// Those of a file, which may be the server's own: who makes one at home often marks it as one that vouches for others, and then a
    /// strict reading has it vouch for no server.
    pinned: Vec<CertificateDer<'static>>,
}

/// Checks as much of a server's certificate as the mode asks for.
#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let verdict = match trust.verifier.verify_server_cert(own, chain, name, stapled, now) {
            Err(Error::InvalidCertificate(_)) if trust.pinned.iter().any(|pinned| pinned == own) => {
                client::verify_server_name(&ParsedCertificate::try_from(own)?, name)
                    .map(|()| ServerCertVerified::assertion())
            }
            verdict => verdict,
        };
        match verdict {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Encrypts one stream, to a server of that name.
pub struct Handshake {
    config: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(host.to_owned()).ok();
        Ok(Handshake { config: self.0.clone(), name })
    }
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("TLS is not used here"))?;
            let name = self
                .name
                .ok_or_else(|| io::Error::other("the host's name is none that a certificate can have"))?;
            Ok(Encrypted(TlsConnector::from(config).connect(name, stream).await?))
        })
    }
}

/// A stream of which others see nothing.
pub struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        let end_point =
            certificates.and_then(|certificates| certificates.first()).and_then(|own| end_point(own));
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The digest of a certificate by which both sides know that they mean the same connection (RFC 5929, section 4.1); none where it has none.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use ::ring::digest::{SHA256, SHA384, SHA512, digest};
    const SEQUENCE: u8 = 0x30;
    const OBJECT: u8 = 0x06;
    // Certificate ::= SEQUENCE { what is signed, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(whole, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (object, _) = element(algorithm, OBJECT)?;
    let by = match object {
        // RSA with MD5, SHA-1 and SHA-256, ECDSA with SHA-1 and SHA-256: weaker ones than SHA-256 count as that.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => &SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &SHA512,
        _ => return None,
    };
    Some(digest(by, certificate).as_ref().to_vec())
}

/// What the first element of DER holds, which has that tag, and what comes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let long = usize::from(first & 0x7f);
    let (length, rest) = match first {
        0..0x80 => (long, rest),
        _ if long > 4 => return None,
        _ => {
            let (bytes, rest) = rest.split_at_checked(long)?;
            (bytes.iter().fold(0_usize, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}
