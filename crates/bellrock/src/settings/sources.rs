//! Gathers the text of each setting from the strongest source that gives one: flag, environment
//! variable, file, default. Names that are no setting's are faults, with the nearest that is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use runtime::Secret;
use serde_json::Value;

use super::place::PROVIDER_PREFIXES;
use super::table::{self, Row};

/// The texts of one setting, one unless it may repeat, and how a message names it and its source.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    pub texts: Vec<String>,
    pub named: String,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The texts may be secrets.
        f.debug_struct("Given").field("named", &self.named).finish_non_exhaustive()
    }
}

/// What a sentence to the operator says is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The texts of all settings that a source gives, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub settings: BTreeMap<&'static str, Given>,
    /// By tenant, then by key; only the file has these.
    pub tenants: BTreeMap<String, BTreeMap<&'static str, Given>>,
    /// The environment's variables that are not ours: credentials of the bucket.
    pub provider_variables: Vec<(String, Secret)>,
}

/// What does not change while the process runs: its flags and its environment.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Flags in their order, without the leading dashes: (`querier.timeout`, `30s`).
    pub flags: Vec<(String, String)>,
    /// The environment.
    pub variables: Vec<(String, String)>,
}

impl Texts {
    /// Gathers all texts; reads the file that `--config` or its variable names.
    pub fn gather(surroundings: &Surroundings, faults: &mut Vec<Fault>) -> Texts {
        let mut texts = Texts::default();
        texts.take_flags(&surroundings.flags, faults);
        texts.take_variables(&surroundings.variables, faults);
        let providers = |name: &str| PROVIDER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let variables = surroundings.variables.iter().filter(|(name, _)| providers(name));
        texts.provider_variables = variables.map(|(name, text)| (name.clone(), Secret::new(text))).collect();
        if let Some(config) = texts.settings.get("config").cloned() {
            // Its own fault where it is no path at all; here it is only followed.
            let path = Path::new(&config.texts[0]);
            match read_file(path) {
                Ok(file) => texts.take_file(&file, path, faults),
                Err(error) => faults.push(Fault(format!("{} {}: {error}", config.named, path.display()))),
            }
        }
        texts
    }

    fn take_flags(&mut self, flags: &[(String, String)], faults: &mut Vec<Fault>) {
        for (key, text) in flags {
            let Some(row) = table::row(key) else {
                let nearest = nearest(key, table::rows().map(|row| row.key.to_string()));
                faults.push(unknown(&format!("--{key}"), "", nearest.map(|key| format!("--{key}"))));
                continue;
            };
            if row.is_secret {
                let (flag, variable) = (row.flag(), row.variable());
                let hint = format!("use {flag}-file, or the variable {variable}");
                faults.push(Fault(format!("{flag} would be seen by everybody on this machine; {hint}")));
                continue;
            }
            let given = self.settings.entry(row.key).or_insert_with(|| Given { texts: Vec::new(), named: row.flag() });
            given.texts.push(text.clone());
            if given.texts.len() == 2 && !row.may_repeat {
                faults.push(Fault(format!("{} is given more than once", row.flag())));
            }
        }
    }

    fn take_variables(&mut self, variables: &[(String, String)], faults: &mut Vec<Fault>) {
        let known: BTreeMap<String, &'static Row> = table::rows().map(|row| (row.variable(), row)).collect();
        for (name, text) in variables.iter().filter(|(name, _)| name.starts_with("BELLROCK_")) {
            if let Some(row) = known.get(name) {
                let texts = match row.may_repeat {
                    true => text.split(',').map(|text| text.trim().to_string()).collect(),
                    false => vec![text.clone()],
                };
                let given = Given { texts, named: name.clone() };
                self.settings.entry(row.key).or_insert(given);
            } else if let Some(nearest) = nearest(name, known.keys().cloned()) {
                // Others are left alone: Kubernetes sets BELLROCK_PORT and the like for a service of that name.
                faults.push(unknown(name, "", Some(nearest)));
            }
        }
    }

    fn take_file(&mut self, file: &Value, path: &Path, faults: &mut Vec<Fault>) {
        let place = format!(" in {}", path.display());
        let mut flat = Vec::new();
        let mut tenants = None;
        match file {
            Value::Null => {}
            Value::Object(top) => {
                for (name, value) in top {
                    match name.as_str() {
                        "tenants" => tenants = Some(value),
                        name => flatten(name, value, &mut flat),
                    }
                }
            }
            _ => faults.push(Fault(format!("{} is not a list of settings", path.display()))),
        }
        let settings = take_flat(&flat, "", &place, |row| row.key != "config", faults);
        for (key, given) in settings {
            self.settings.entry(key).or_insert(given);
        }
        match tenants {
            None | Some(Value::Null) => {}
            Some(Value::Object(tenants)) => {
                for (tenant, value) in tenants {
                    let mut flat = Vec::new();
                    flatten("", value, &mut flat);
                    let prefix = format!("tenants.{tenant}.");
                    let given = take_flat(&flat, &prefix, &place, |row| row.is_per_tenant, faults);
                    self.tenants.insert(tenant.clone(), given);
                }
            }
            Some(_) => faults.push(Fault(format!("tenants{place} is not a map from tenant to settings"))),
        }
    }
}

fn read_file(path: &Path) -> Result<Value, String> {
    #[allow(clippy::disallowed_methods, reason = "the operator's file, read once at start and on SIGHUP")]
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| error.to_string())
}

/// Lists the leaves below `value` with their dotted names.
fn flatten<'a>(name: &str, value: &'a Value, flat: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (below, value) in map {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{below}"), value, flat);
            }
        }
        // An empty section is what is left when all of it is commented out.
        Value::Object(_) | Value::Null => {}
        leaf => flat.push((name.to_string(), leaf)),
    }
}

fn take_flat(
    flat: &[(String, &Value)],
    prefix: &str,
    place: &str,
    may_stand_here: impl Fn(&Row) -> bool,
    faults: &mut Vec<Fault>,
) -> BTreeMap<&'static str, Given> {
    let known: BTreeMap<String, &'static Row> =
        table::rows().filter(|row| may_stand_here(row)).map(|row| (row.file_key(), row)).collect();
    let mut taken = BTreeMap::new();
    for (name, value) in flat {
        // A map can't be a text as well, so beside its own settings the bucket's URL has a name.
        let name = if name == "bucket.url" { "bucket" } else { name };
        let Some(row) = known.get(name) else {
            let nearest = nearest(name, known.keys().cloned()).map(|name| format!("{prefix}{name}"));
            let elsewhere = table::rows().any(|row| row.file_key() == name);
            match (nearest, elsewhere) {
                (None, true) => faults.push(Fault(format!("{prefix}{name}{place} cannot be set there"))),
                (nearest, _) => faults.push(unknown(&format!("{prefix}{name}"), place, nearest)),
            }
            continue;
        };
        let named = format!("{prefix}{name}{place}");
        match texts_of(value, row.may_repeat) {
            Some(texts) => {
                taken.insert(row.key, Given { texts, named });
            }
            None => faults.push(Fault(format!("{named} is a list, and takes one value"))),
        }
    }
    taken
}

fn texts_of(value: &Value, may_repeat: bool) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Array(values) if may_repeat => Some(values.iter().map(text).collect()),
        Value::Array(_) => None,
        value => Some(vec![text(value)]),
    }
}

/// The fault of a name that is no setting's.
pub fn unknown(name: &str, place: &str, nearest: Option<String>) -> Fault {
    let hint = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    Fault(format!("{name}{place} is not a setting{hint}"))
}

/// The candidate that `name` was probably meant to be: one typing mistake in four letters at most.
pub fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    // An owner that was left out, and the other spelling of a separator, are no mistakes in typing.
    let plain = |text: &str| text.replace(['-', '_', '.'], "").to_lowercase();
    let name = plain(name);
    let distances = candidates.map(|candidate| {
        let full = plain(&candidate);
        let last = candidate.rsplit('.').next().map(plain).unwrap_or_default();
        (edit_distance(&name, &full).min(1 + edit_distance(&name, &last)), candidate)
    });
    distances.min().filter(|(distance, _)| *distance <= 1.max(name.len() / 4)).map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace to make one text of the other (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_the_one_that_was_meant() {
        let check = |name: &str, expected: Option<&str>| {
            let found = nearest(name, table::rows().map(|row| row.key.to_string()));
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("querier.timeot", Some("querier.timeout"));
        check("querier.max_samples", Some("querier.max-samples"));
        check("timeout", Some("querier.timeout"));
        check("max-samples", Some("querier.max-samples"));
        check("lissten", Some("listen"));
        check("storage.tsdb.path", None);
        check("x", None);
    }
}
