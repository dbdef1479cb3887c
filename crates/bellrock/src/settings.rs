//! What an operator has written, read whole: either every setting has a value, or every fault is told.
//!
//! `table` says which settings there are, `sources` where their texts come from, `values` what a text
//! may be. Here the texts become typed values; `serve` maps those onto the roles' own settings.

pub mod cluster;
mod place;
pub mod sources;
pub mod table;
pub mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bucket::{CacheLimits, Location};
use model::TenantId;
use tracing::level_filters::LevelFilter;

use cluster::ClusterSettings;
use sources::{Fault, Given, Surroundings, Texts};
use values::MemoryMax;

/// All settings, typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The data folder.
    pub data: PathBuf,
    /// Where the bucket is; `None`: in the data folder.
    pub bucket: Option<Location>,
    /// Copies of a remote bucket's ranges that are kept.
    pub cache: CacheLimits,
    /// Memory that data being taken in and queries may use.
    pub memory_max: MemoryMax,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// This node among others.
    pub cluster: ClusterSettings,
    /// The largest body that is read.
    pub request_bytes_max: u64,
    /// The largest body once decompressed.
    pub request_decoded_bytes_max: u64,
    /// A head is cut at this age.
    pub cut_age_max: Duration,
    /// How long a recovery waits for processes of before.
    pub recover_wait: Duration,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// Samples that a query may hold at once.
    pub max_samples: u64,
    /// From how many samples on an aggregation is spread over the nodes.
    pub shard_samples_min: u64,
    /// Memory that a query may take.
    pub query_max_bytes: MemoryMax,
    /// How far a query looks back for a series' latest sample.
    pub lookback: Duration,
    /// Limits for tenants that have none of their own.
    pub limits: Limits,
    /// Limits of the tenants that the file names, with the general ones where it says nothing.
    pub tenants: BTreeMap<TenantId, Limits>,
}

/// What a tenant may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Samples older than this are refused; none keeps them for ever.
    pub retention: Option<Duration>,
    /// Labels of one series, its name included.
    pub max_labels_per_series: u64,
    /// The longest label name.
    pub max_label_name_bytes: u64,
    /// The longest label value.
    pub max_label_value_bytes: u64,
    /// Samples further ahead of the clock are refused.
    pub max_future: Duration,
    /// Steps of a range query.
    pub max_points_per_series: u64,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Settings as they were read, and the texts that they were read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed values.
    pub settings: Settings,
    texts: Texts,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "setting is" } else { "settings are" };
        write!(f, "{count} {noun} wrong (bad-settings):")?;
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// What a reload has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that differ and are in force now, as the file spells them.
    pub applied: Vec<String>,
    /// Settings that differ and need a restart.
    pub needs_restart: Vec<String>,
}

impl Loaded {
    /// Reads all settings, and the file if one is named; returns every fault at once.
    pub fn read(surroundings: &Surroundings) -> Result<Loaded, Faults> {
        let mut faults = Vec::new();
        let texts = Texts::gather(surroundings, &mut faults);
        let settings = read(&texts, &mut faults);
        if faults.is_empty() { Ok(Loaded { settings, texts }) } else { Err(Faults(faults)) }
    }

    /// Reads the sources again and puts what may change while running in force; `self` is as it was
    /// when there is a fault.
    pub fn reload(&mut self, surroundings: &Surroundings) -> Result<Reloaded, Faults> {
        let new = Loaded::read(surroundings)?;
        let mut done = Reloaded::default();
        let mut texts = new.texts;
        for row in table::rows() {
            if self.texts.effective(row) == texts.effective(row) {
                continue;
            }
            if row.is_live {
                done.applied.push(row.file_key());
                continue;
            }
            done.needs_restart.push(row.file_key());
            // The one in force stays, and is compared with again at the next reload.
            match self.texts.settings.get(row.key) {
                Some(given) => texts.settings.insert(row.key, given.clone()),
                None => texts.settings.remove(row.key),
            };
        }
        if texts_by_tenant(&self.texts) != texts_by_tenant(&texts) {
            done.applied.push("tenants".to_string());
        }
        // Read once more, with the texts of what stays; they have been read without a fault before.
        self.settings = read(&texts, &mut Vec::new());
        self.texts = texts;
        Ok(done)
    }
}

/// Only the texts, without how a message names their place.
fn texts_by_tenant(texts: &Texts) -> Vec<(&str, &str, &[String])> {
    let mut flat = Vec::new();
    for (tenant, settings) in &texts.tenants {
        // A tenant without settings of its own is one that is not there.
        flat.extend(settings.iter().map(|(key, given)| (tenant.as_str(), *key, given.texts.as_slice())));
    }
    flat
}

impl Texts {
    /// The texts that count for `row`, its default if no source gives one.
    fn effective(&self, row: &table::Row) -> Vec<String> {
        match self.settings.get(row.key) {
            Some(given) => given.texts.clone(),
            None => vec![row.default.to_string()],
        }
    }
}

fn read(texts: &Texts, faults: &mut Vec<Fault>) -> Settings {
    let mut general = Reader { own: None, general: &texts.settings, faults };
    let settings = Settings {
        listen: general.all("listen", values::address),
        data: general.one("data", values::path),
        bucket: place::read(&mut general, &texts.provider_variables),
        cache: CacheLimits {
            memory_bytes: general.one("bucket.cache-memory-max", values::size_or_none),
            disk_bytes: general.one("bucket.cache-disk-max", values::size_or_none),
        },
        memory_max: general.one("memory.max", values::memory_max),
        log_level: general.one("log.level", log_level),
        log_format: general
            .one("log.format", |text| values::word(text, &[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)])),
        cluster: general.cluster(),
        request_bytes_max: general.one("api.request-bytes-max", values::size),
        request_decoded_bytes_max: general.one("api.request-decoded-bytes-max", values::size),
        cut_age_max: general.one("ingester.cut-age-max", values::duration),
        recover_wait: general.one("recover.wait", values::duration),
        query_timeout: general.one("querier.timeout", values::duration),
        max_samples: general.one("querier.max-samples", values::count),
        shard_samples_min: general.one("querier.shard-samples-min", values::count),
        query_max_bytes: general.one("querier.max-bytes", values::memory_max),
        lookback: general.one("querier.lookback", values::duration),
        limits: general.limits(),
        tenants: BTreeMap::new(),
    };
    let mut tenants = BTreeMap::new();
    for (name, own) in &texts.tenants {
        match TenantId::new(name) {
            Ok(tenant) => {
                let mut reader = Reader { own: Some(own), general: &texts.settings, faults };
                tenants.insert(tenant, reader.limits());
            }
            Err(error) => faults.push(Fault(format!("tenants.{name}: {error}"))),
        }
    }
    // A fault in a general setting would be told again for each tenant.
    let mut seen = std::collections::BTreeSet::new();
    faults.retain(|fault| seen.insert(fault.clone()));
    Settings { tenants, ..settings }
}

fn log_level(text: &str) -> Result<LevelFilter, values::Expected> {
    let words = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    values::word(text, &words)
}

/// Reads typed values and collects what is wrong with their texts.
struct Reader<'a> {
    /// A tenant's own texts, which come before the general ones.
    own: Option<&'a BTreeMap<&'static str, Given>>,
    general: &'a BTreeMap<&'static str, Given>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn limits(&mut self) -> Limits {
        Limits {
            retention: self.one("retention", values::retention),
            max_labels_per_series: self.one("ingester.max-labels-per-series", values::count),
            max_label_name_bytes: self.one("ingester.max-label-name-bytes", values::size),
            max_label_value_bytes: self.one("ingester.max-label-value-bytes", values::size),
            max_future: self.one("ingester.max-future", values::duration),
            max_points_per_series: self.one("querier.max-points-per-series", values::count),
        }
    }

    /// The value of `key`; after a fault its default, which nobody gets to see.
    fn one<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, values::Expected>) -> T {
        self.all(key, parse).swap_remove(0)
    }

    /// The values of `key`, at least one.
    fn all<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, values::Expected>) -> Vec<T> {
        let row = table::row(key).expect("every key that is read has a row");
        let mut values = self.any(key, &parse);
        if values.is_empty() {
            values.extend(parse(row.default).ok());
        }
        assert!(!values.is_empty(), "the default of {key} can be read");
        values
    }

    /// The value of `key`, if a source gives one.
    fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, values::Expected>) -> Option<T> {
        self.any(key, parse).pop()
    }

    /// The values of `key` that sources give.
    fn any<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, values::Expected>) -> Vec<T> {
        let row = table::row(key).expect("every key that is read has a row");
        let mut values = Vec::new();
        if let Some(given) = self.given(key) {
            if given.texts.is_empty() {
                self.faults.push(Fault(format!("{} is empty", given.named)));
            }
            for text in &given.texts {
                match parse(text) {
                    Ok(value) => values.push(value),
                    Err(expected) if row.is_secret => self.faults.push(Fault(format!("{} {expected}", given.named))),
                    Err(expected) => self.faults.push(Fault(format!("{} {text:?} {expected}", given.named))),
                }
            }
        }
        values
    }

    /// What sources give for `key`.
    fn given(&self, key: &str) -> Option<&'a Given> {
        self.own.and_then(|own| own.get(key)).or_else(|| self.general.get(key))
    }
}

#[cfg(test)]
mod tests;
