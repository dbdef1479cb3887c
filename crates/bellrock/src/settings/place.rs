//! Where the bucket is: its URL, what belongs to it, and the credentials, from the environment or a file.

use std::path::Path;

use bucket::{Location, Protocol, Remote};
use runtime::Secret;

use super::Reader;
use super::sources::Fault;
use super::values::{self, Expected};

/// Variables of the environment that begin so hold what the providers' own tools read.
pub const PROVIDER_PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The settings that mean something only beside a URL of an object store.
const OF_REMOTE: [&str; 5] =
    ["bucket.endpoint", "bucket.region", "bucket.path-style", "bucket.credentials-file", "bucket.ca-file"];

/// The bucket's place; `None`: a folder of the data's.
pub fn read(reader: &mut Reader<'_>, variables: &[(String, Secret)]) -> Option<Location> {
    let faults_before = reader.faults.len();
    let location = reader.one("bucket", |text| optional(text, Location::parse));
    let endpoint = reader.one("bucket.endpoint", |text| optional(text, endpoint));
    let region = reader.one("bucket.region", |text| optional(text, |text| Ok(text.to_owned())));
    let path_style = reader.one("bucket.path-style", |text| {
        optional(text, |text| values::word(text, &[("true", true), ("false", false)]))
    });
    let credentials_file = reader.one("bucket.credentials-file", |text| optional(text, values::path));
    let ca_file = reader.one("bucket.ca-file", |text| optional(text, values::path));
    let Some(Location::Remote(remote)) = location else {
        // A bad text among them is told first: it may be the URL itself.
        if reader.faults.len() == faults_before {
            for given in OF_REMOTE.iter().filter_map(|key| reader.general.get(key)) {
                let fault = format!("{} is of no use without a --bucket of s3://, gs:// or az://", given.named);
                reader.faults.push(Fault(fault));
            }
        }
        return location;
    };
    let ca_pem = ca_file.and_then(|path| read_file(reader, "bucket.ca-file", &path));
    let mut credentials = variables.to_vec();
    match (credentials_file, remote.protocol) {
        // Its tools keep a service account's key in a file of their own form, which the library reads.
        (Some(path), Protocol::Gcs) => {
            credentials.retain(|(name, _)| !name.starts_with("GOOGLE_"));
            credentials.push(("GOOGLE_SERVICE_ACCOUNT".to_owned(), Secret::new(path.to_string_lossy())));
        }
        (Some(path), _) => {
            if let Some(text) = read_file(reader, "bucket.credentials-file", &path) {
                let found = in_file(&String::from_utf8_lossy(&text));
                if found.is_empty() {
                    let fault = format!(
                        "--bucket.credentials-file {} has no lines such as aws_access_key_id = … under [default]",
                        path.display()
                    );
                    reader.faults.push(Fault(fault));
                }
                // Whole from one source: a key of one and a secret of the other are of no use.
                credentials = found;
            }
        }
        (None, _) => {}
    }
    let has = |name: &str| credentials.iter().any(|(other, _)| other == name);
    let is_own_server = remote.protocol == Protocol::S3 && endpoint.is_some();
    if is_own_server && reader.faults.is_empty() && !(has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY")) {
        let fault = "--bucket.endpoint needs credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the \
                     environment, or aws_access_key_id and aws_secret_access_key in a --bucket.credentials-file";
        reader.faults.push(Fault(fault.to_owned()));
    }
    Some(Location::Remote(Remote { endpoint, region, path_style, ca_pem, credentials, ..remote }))
}

fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, Expected>) -> Result<Option<T>, Expected> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn endpoint(text: &str) -> Result<String, Expected> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host.map(|host| host.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && !host.contains(['/', '@', '?', '#']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("is not the URL of a server, such as http://127.0.0.1:3900 or https://s3.example.org".to_owned()),
    }
}

fn read_file(reader: &mut Reader<'_>, key: &str, path: &Path) -> Option<Vec<u8>> {
    #[allow(clippy::disallowed_methods, reason = "the operator's file, read once at start")]
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let named = reader.general.get(key).map_or_else(|| format!("--{key}"), |given| given.named.clone());
            reader.faults.push(Fault(format!("{named} {}: {error}", path.display())));
            None
        }
    }
}

/// `name = value` under `[default]`, or under no heading; names as the environment spells them.
fn in_file(text: &str) -> Vec<(String, Secret)> {
    let mut found = Vec::new();
    let mut is_ours = true;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_ours = line == "[default]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_ours && !line.starts_with(['#', ';'])) {
            found.push((name.trim().to_ascii_uppercase(), Secret::new(value.trim())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sources::Surroundings;
    use super::super::{Faults, Loaded};
    use super::*;

    fn load(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Option<Location>, String> {
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
        };
        let surroundings = Surroundings { flags: own(flags), variables: own(variables) };
        let loaded = Loaded::read(&surroundings).map_err(|Faults(faults)| format!("{faults:?}"))?;
        Ok(loaded.settings.bucket)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

    #[test]
    fn credentials_come_from_the_environment_or_whole_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[other]\naws_access_key_id = no\n[default]\n# x = y\naws_access_key_id = of file\n")
            .unwrap();
        let remote = [("bucket", "s3://metrics/a"), ("bucket.region", "garage")];
        let Ok(Some(Location::Remote(found))) = load(&remote, &KEYS) else { panic!() };
        assert_eq!((found.name.as_str(), found.prefix.as_str()), ("metrics", "a"));
        assert_eq!(found.credentials.len(), 2);
        let flags = [remote[0], ("bucket.credentials-file", file.to_str().unwrap())];
        let Ok(Some(Location::Remote(found))) = load(&flags, &KEYS) else { panic!() };
        assert_eq!(found.credentials, [("AWS_ACCESS_KEY_ID".to_owned(), Secret::new("of file"))]);
        assert_eq!(load(&[], &KEYS), Ok(None));
        assert_eq!(load(&[("bucket", "file:///srv/m")], &KEYS), Ok(Some(Location::Shared("/srv/m".into()))));
    }

    #[test]
    fn what_does_not_fit_together_is_told_without_secrets() {
        let endpoint = ("bucket.endpoint", "http://127.0.0.1:3900");
        for (flags, variables, fault) in [
            (vec![("bucket", "ftp://x")], &[][..], "is none of file:///path"),
            (vec![endpoint], &[], "of no use without"),
            (vec![("bucket", "s3://m"), endpoint], &[], "needs credentials"),
            (vec![("bucket", "s3://m"), ("bucket.endpoint", "127.0.0.1:3900")], &KEYS, "is not the URL of a server"),
            (vec![("bucket", "s3://m"), ("bucket.path-style", "yes")], &KEYS, "is none of: true, false"),
            (vec![("bucket", "s3://m"), ("bucket.ca-file", "/nowhere/ca.pem")], &KEYS, "/nowhere/ca.pem"),
        ] {
            let faults = load(&flags, variables).unwrap_err();
            assert!(faults.contains(fault), "{faults}");
            assert!(!faults.contains("hunter2"), "{faults}");
        }
    }

    #[test]
    fn the_file_may_nest_the_url() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bellrock.yaml");
        std::fs::write(&file, "bucket:\n  url: s3://metrics\n  endpoint: http://[::1]:3900\n").unwrap();
        let Ok(Some(found)) = load(&[("config", file.to_str().unwrap())], &KEYS) else { panic!() };
        assert_eq!(found.to_string(), "s3://metrics at http://[::1]:3900");
        std::fs::write(&file, "bucket: s3://metrics\n").unwrap();
        assert!(load(&[("config", file.to_str().unwrap())], &KEYS).is_ok());
    }
}
