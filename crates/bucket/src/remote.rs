//! Opens a bucket of an object store: what is sent to whom, signed with what.
//!
//! `object_store`'s own retries and timeouts are off: how long to wait and when to try again is decided where the
//! reason is known (`patience` for reads and single objects, the ingester's flush for segments). No conditional
//! PUT and no bulk delete is asked for, as not every store has them (Garage ignores `If-None-Match`).

use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::location::{Protocol, Remote};

/// How long a connection may take to stand; then its attempt fails, and the next one may reach another address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that nobody used for this long is closed: below what servers and firewalls forget them at.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// What of the environment S3's credentials are made of; nothing else of it changes what is sent.
const AWS_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Connects lazily: nothing is sent yet. Errors are the operator's: a setting is missing or wrong.
pub fn open(remote: &Remote) -> object_store::Result<Arc<dyn ObjectStore>> {
    install_ring();
    let store: Arc<dyn ObjectStore> = match remote.protocol {
        Protocol::S3 => Arc::new(s3(remote)?.build()?),
        Protocol::Gcs => Arc::new(gcs(remote)?.build()?),
        Protocol::Azure => Arc::new(azure(remote)?.build()?),
    };
    if remote.prefix.is_empty() {
        return Ok(store);
    }
    Ok(Arc::new(PrefixStore::new(store, remote.prefix.as_str())))
}

fn s3(remote: &Remote) -> object_store::Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&remote.name)
        .with_disable_bulk_delete(true)
        .with_disable_tagging(true)
        .with_retry(no_retries())
        .with_client_options(client_options(remote)?);
    for (name, secret) in remote.credentials.iter().filter(|(name, _)| AWS_VARIABLES.contains(&name.as_str())) {
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse()?;
        builder = builder.with_config(key, secret.reveal());
    }
    if let Some(region) = &remote.region {
        builder = builder.with_region(region);
    }
    let path_style = remote.path_style.unwrap_or(remote.endpoint.is_some());
    if let Some(endpoint) = &remote.endpoint {
        // The builder takes an endpoint of this style with the bucket's name in it.
        let endpoint = if path_style { endpoint.clone() } else { with_bucket_in_host(endpoint, &remote.name) };
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder.with_virtual_hosted_style_request(!path_style))
}

fn gcs(remote: &Remote) -> object_store::Result<GoogleCloudStorageBuilder> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&remote.name)
        .with_retry(no_retries())
        .with_client_options(client_options(remote)?);
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    for (name, secret) in remote.credentials.iter().filter(|(name, _)| name.starts_with("GOOGLE_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, secret.reveal());
        }
    }
    Ok(builder)
}

fn azure(remote: &Remote) -> object_store::Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&remote.name)
        .with_retry(no_retries())
        .with_client_options(client_options(remote)?);
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    for (name, secret) in remote.credentials.iter().filter(|(name, _)| name.starts_with("AZURE_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, secret.reveal());
        }
    }
    Ok(builder)
}

fn client_options(remote: &Remote) -> object_store::Result<ClientOptions> {
    let is_plain = remote.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut options = ClientOptions::new()
        .with_allow_http(is_plain)
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT);
    if is_plain {
        // A machine without the system's certificates (a small container) needs none for this.
        options = options.with_no_system_certificates(true);
    }
    if let Some(pem) = &remote.ca_pem {
        for certificate in Certificate::from_pem_bundle(pem)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() }
}

/// `https://host:port` becomes `https://bucket.host:port`.
fn with_bucket_in_host(endpoint: &str, name: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{name}.{host}"),
        None => endpoint.to_owned(),
    }
}

/// TLS takes ring for the whole process: `rustls` was built without a default of its own.
fn install_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody else has installed one, which serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_name_goes_into_the_host() {
        assert_eq!(with_bucket_in_host("https://s3.example:9000", "m"), "https://m.s3.example:9000");
    }

    #[test]
    fn every_protocol_opens_with_what_it_needs() {
        let secret = |name: &str, text: &str| (name.to_owned(), runtime::Secret::new(text));
        let s3 = Remote {
            endpoint: Some("http://[::1]:1".into()),
            credentials: vec![secret("AWS_ACCESS_KEY_ID", "a"), secret("AWS_SECRET_ACCESS_KEY", "b")],
            ..Remote::new(Protocol::S3, "metrics", "a/b")
        };
        assert!(open(&s3).is_ok());
        let half = Remote { credentials: vec![secret("AWS_ACCESS_KEY_ID", "a")], ..s3 };
        assert!(open(&half).is_err());
        let azure = Remote {
            credentials: vec![secret("AZURE_STORAGE_ACCOUNT_NAME", "a"), secret("AZURE_STORAGE_ACCOUNT_KEY", "YQ==")],
            ..Remote::new(Protocol::Azure, "metrics", "")
        };
        assert!(open(&azure).is_ok());
        assert!(open(&Remote::new(Protocol::Azure, "metrics", "")).is_err(), "without an account");
        assert!(open(&Remote::new(Protocol::Gcs, "metrics", "")).is_ok(), "the machine's own credentials");
    }
}
