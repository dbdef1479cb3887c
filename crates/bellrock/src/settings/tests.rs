use super::*;
use std::path::Path;

/// Flags as (key, text), variables as (name, text), and a file's text.
fn surroundings(flags: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&Path>) -> Surroundings {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    };
    let mut flags = own(flags);
    flags.extend(file.map(|file| ("config".to_string(), file.display().to_string())));
    Surroundings { flags, variables: own(variables) }
}

struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let file = File { dir: tempfile::tempdir().unwrap() };
        file.write(text);
        file
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("bellrock.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn faults_of(surroundings: &Surroundings) -> Vec<String> {
    let Err(Faults(faults)) = Loaded::read(surroundings) else { return Vec::new() };
    faults.into_iter().map(|fault| fault.0).collect()
}

#[test]
fn defaults_are_what_the_issue_says() {
    let settings = Loaded::read(&Surroundings::default()).unwrap().settings;
    assert_eq!(settings.listen, ["127.0.0.1:9009".parse().unwrap()]);
    assert_eq!(settings.data, Path::new("./bellrock-data"));
    assert_eq!(settings.memory_max, MemoryMax::Percent(50));
    assert_eq!((settings.request_bytes_max, settings.request_decoded_bytes_max), (32 << 20, 32 << 20));
    assert_eq!(settings.lookback, Duration::from_secs(300));
    let limits = &settings.limits;
    assert_eq!(limits.retention, None);
    assert_eq!((limits.max_labels_per_series, limits.max_label_name_bytes), (100, 1 << 10));
    assert_eq!((limits.max_label_value_bytes, limits.max_points_per_series), (8 << 10, 11_000));
    assert_eq!((settings.max_samples, settings.query_timeout), (50_000_000, Duration::from_secs(120)));
    assert!(settings.tenants.is_empty());
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let file = File::new("querier: {timeout: 3s, max_samples: 7, lookback: 1m}\nlisten: ['[::1]:1', '127.0.0.1:2']\n");
    let surroundings = surroundings(
        &[("querier.timeout", "1s")],
        &[("BELLROCK_QUERIER_TIMEOUT", "2s"), ("BELLROCK_QUERIER_MAX_SAMPLES", "8"), ("HOME", "/")],
        Some(&file.path()),
    );
    let settings = Loaded::read(&surroundings).unwrap().settings;
    assert_eq!(settings.query_timeout, Duration::from_secs(1));
    assert_eq!(settings.max_samples, 8);
    assert_eq!(settings.lookback, Duration::from_secs(60));
    assert_eq!(settings.limits.max_points_per_series, 11_000);
    assert_eq!(settings.listen.len(), 2);
}

#[test]
fn a_repeated_setting_replaces_weaker_sources_whole() {
    let variables = [("BELLROCK_LISTEN", "127.0.0.1:1, 127.0.0.1:2")];
    let settings = Loaded::read(&surroundings(&[], &variables, None)).unwrap().settings;
    assert_eq!(settings.listen.len(), 2);
    let flags = [("listen", "127.0.0.1:3")];
    let settings = Loaded::read(&surroundings(&flags, &variables, None)).unwrap().settings;
    assert_eq!(settings.listen, ["127.0.0.1:3".parse().unwrap()]);
}

#[test]
fn the_file_may_be_named_by_its_variable_and_may_be_empty() {
    let file = File::new("# nothing yet\nlog:\n  # level: debug\n");
    let path = file.path().display().to_string();
    let loaded = Loaded::read(&surroundings(&[], &[("BELLROCK_CONFIG", &path)], None)).unwrap();
    assert_eq!(loaded.settings, Loaded::read(&Surroundings::default()).unwrap().settings);
}

#[test]
fn every_fault_of_every_source_is_listed() {
    let file = File::new(
        "querier: {max_sample: 5, lookback: never}\nmemory: {max: [1]}\nconfig: x\n\
         tenants: {team-a: {retention: 1d, ingester: {max_labels_per_series: many}, listen: '127.0.0.1:1'}, 'a/b': {}}\n",
    );
    let found = faults_of(&surroundings(
        &[("querier.timeot", "1s"), ("data", "a"), ("data", "b"), ("api.request-bytes-max", "32")],
        &[("BELLROCK_LOG_LEVEL", "loud"), ("BELLROCK_QUERIER_TIMEOT", "1s"), ("BELLROCK_SERVICE_PORT_HTTP", "1")],
        Some(&file.path()),
    ));
    let expected = [
        "--querier.timeot is not a setting; did you mean --querier.timeout?",
        "--data is given more than once",
        "BELLROCK_QUERIER_TIMEOT is not a setting; did you mean BELLROCK_QUERIER_TIMEOUT?",
        "memory.max in FILE is a list, and takes one value",
        "config in FILE cannot be set there",
        "querier.max_sample in FILE is not a setting; did you mean querier.max_samples?",
        "tenants.team-a.listen in FILE cannot be set there",
        "BELLROCK_LOG_LEVEL \"loud\" is none of: error, warn, info, debug, trace",
        "--api.request-bytes-max \"32\" is not a size with its unit, such as 512MiB or 2GiB",
        "querier.lookback in FILE \"never\" is not a duration longer than nothing, such as 30s, 5m, 1h30m or 90d",
        "tenants.a/b: tenant \"a/b\" is not 1 to 150 characters of [A-Za-z0-9_.-], other than \".\" and \"..\"",
        "tenants.team-a.ingester.max_labels_per_series in FILE \"many\" is not a whole number of 1 or more",
    ];
    let mut found: Vec<String> =
        found.iter().map(|fault| fault.replace(&file.path().display().to_string(), "FILE")).collect();
    let mut expected: Vec<String> = expected.iter().map(|fault| fault.to_string()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_that_says_why() {
    let missing = faults_of(&surroundings(&[("config", "/no/such/file.yaml")], &[], None));
    assert_eq!(missing, ["--config /no/such/file.yaml: No such file or directory (os error 2)"]);
    let broken = File::new("querier: {timeout: 1s\n");
    let found = faults_of(&surroundings(&[], &[], Some(&broken.path())));
    assert!(found.len() == 1 && found[0].contains("line"), "{found:?}");
    let twice = File::new("retention: 1d\nretention: 2d\n");
    let found = faults_of(&surroundings(&[], &[], Some(&twice.path())));
    assert!(found.len() == 1 && found[0].contains("retention"), "{found:?}");
    let list = File::new("- a\n");
    assert!(faults_of(&surroundings(&[], &[], Some(&list.path())))[0].ends_with("is not a list of settings"));
}

#[test]
fn a_tenant_has_its_own_limits_and_the_general_ones_otherwise() {
    let file = File::new("retention: 30d\ntenants: {team-a: {ingester: {max_labels_per_series: 9}}, team-b: }\n");
    let settings = Loaded::read(&surroundings(&[], &[], Some(&file.path()))).unwrap().settings;
    let team_a = &settings.tenants[&TenantId::new("team-a").unwrap()];
    assert_eq!((team_a.max_labels_per_series, team_a.retention), (9, Some(Duration::from_secs(30 * 86_400))));
    assert_eq!(settings.tenants[&TenantId::new("team-b").unwrap()], settings.limits);
}

#[test]
fn a_general_fault_is_told_once_however_many_tenants_there_are() {
    let file = File::new("retention: always\ntenants: {a: {}, b: {}}\n");
    assert_eq!(faults_of(&surroundings(&[], &[], Some(&file.path()))).len(), 1);
}

#[test]
fn a_reload_applies_what_is_live_and_names_what_is_not() {
    let file = File::new("listen: 127.0.0.1:1\nlog: {level: info}\n");
    let surroundings = surroundings(&[], &[], Some(&file.path()));
    let mut loaded = Loaded::read(&surroundings).unwrap();
    file.write("listen: 127.0.0.1:2\nlog: {level: debug}\ntenants: {a: {retention: 1d}}\n");
    for round in 0..2 {
        let done = loaded.reload(&surroundings).unwrap();
        // What needs a restart is named at every reload until then; what is in force is not.
        let applied: &[&str] = if round == 0 { &["log.level", "tenants"] } else { &[] };
        assert_eq!((done.applied, done.needs_restart), (own(applied), own(&["listen"])));
        assert_eq!(loaded.settings.log_level, LevelFilter::DEBUG);
        assert_eq!(loaded.settings.listen, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(loaded.settings.tenants.len(), 1);
    }
    file.write("listen: 127.0.0.1:1\nlog: {level: debug}\n");
    let done = loaded.reload(&surroundings).unwrap();
    assert_eq!((done.applied, done.needs_restart), (own(&["tenants"]), own(&[])));
}

#[test]
fn a_bad_file_keeps_the_old_settings() {
    let file = File::new("log: {level: warn}\n");
    let surroundings = surroundings(&[], &[], Some(&file.path()));
    let mut loaded = Loaded::read(&surroundings).unwrap();
    let before = loaded.settings.clone();
    file.write("log: {level: loud}\nretention: 1d\n");
    assert_eq!(loaded.reload(&surroundings).unwrap_err().0.len(), 1);
    assert_eq!(loaded.settings, before);
}

#[test]
fn every_default_can_be_read_and_every_row_is_read() {
    // A text that no setting accepts must be a fault for each row: a row that nobody reads would stay silent.
    for row in table::rows().filter(|row| row.key != "config" && row.key != "data") {
        assert_eq!(faults_of(&surroundings(&[(row.key, "\u{1}")], &[], None)).len(), 1, "{}", row.key);
    }
}

#[test]
fn a_node_among_others_is_read_whole() {
    let secret = File::new("0123456789abcdef\n");
    let file = File::new(
        "bucket: s3://metrics\npeer: {listen: '[::]:9010'}\njoin: ['dns+nodes.example:9010', 'dnssrv+_peer._tcp.example', '10.0.0.1:9010']\n\
         join.nameserver: 10.0.0.53\nexpect: 3\nadvertise_interface: mesh\nnode: {name: n1}\n\
         consul: {address: 'http://127.0.0.1', tags: [a, b], meta: [zone=a], service: metrics}\n",
    );
    let flags = [("peer.secret-file", &*secret.path().display().to_string())];
    let cluster = Loaded::read(&surroundings(&flags, &[], Some(&file.path()))).unwrap().settings.cluster;
    assert_eq!(cluster.peer_listen, ["[::]:9010".parse().unwrap()]);
    assert_eq!(cluster.peer_secret.as_ref().map(runtime::Secret::reveal), Some("0123456789abcdef"));
    assert_eq!((cluster.discovery.sources.len(), cluster.expect), (3, Some(3)));
    assert_eq!(cluster.discovery.nameserver, Some("10.0.0.53:53".parse().unwrap()));
    assert_eq!(cluster.advertise, ::cluster::Advertise::Interface("mesh".to_string()));
    assert_eq!(cluster.node_name.as_deref(), Some("n1"));
    let consul = cluster.consul.unwrap();
    assert_eq!((consul.address.to_string().as_str(), consul.service.as_str()), ("127.0.0.1:8500", "metrics"));
    assert_eq!((consul.tags.as_slice(), consul.meta["zone"].as_str()), (&*own(&["a", "b"]), "a"));

    let nothing = Loaded::read(&Surroundings::default()).unwrap().settings.cluster;
    assert!(nothing.peer_listen.is_empty() && nothing.consul.is_none() && nothing.expect.is_none());
    assert_eq!(nothing.advertise, ::cluster::Advertise::Automatic);
}

#[test]
fn what_makes_no_node_among_others_is_listed() {
    let check = |flags: &[(&str, &str)], variables: &[(&str, &str)], expected: &[&str]| {
        let found = faults_of(&surroundings(flags, variables, None));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    };
    let long = ("BELLROCK_PEER_SECRET", "0123456789abcdef");
    let listen = ("peer.listen", "[::1]:0");
    check(&[listen], &[long], &[]);
    check(&[listen], &[], &["--peer.listen needs --peer.secret-file, BELLROCK_PEER_SECRET or --peer.ca-file"]);
    let without = ["--join means nothing without --peer.listen", "--join means nothing without --bucket"];
    check(&[("join", "10.0.0.1:1")], &[], &without);
    check(&[("join", "nodes:1"), listen], &[long], &["--join \"nodes:1\" is a name without a way to look it up"]);
    check(&[listen, ("expect", "3")], &[long], &["--expect of more than this node means nothing without --join"]);
    check(&[listen, ("expect", "1")], &[long], &[]);
    check(&[listen, ("peer.cert-file", "c")], &[], &["--peer.cert-file needs --peer.ca-file and --peer.key-file"]);
    let certificates = [listen, ("peer.ca-file", "a"), ("peer.cert-file", "c"), ("peer.key-file", "k")];
    check(&certificates, &[], &[]);
    check(&certificates, &[long], &["BELLROCK_PEER_SECRET and --peer.ca-file exclude one another"]);
    check(&[("advertise", "a"), ("advertise-interface", "b")], &[], &["exclude one another"]);
    check(&[("consul.tags", "a")], &[], &["--consul.tags means nothing without --consul.address"]);
    check(&[("consul.address", "https://a")], &[], &["is not plain HTTP"]);
    check(&[("consul.address", "a"), ("consul.meta", "a")], &[], &["is not of the form key=value"]);
    check(&[("join.nameserver", "a")], &[], &["is not an IP address"]);
    let short = File::new("\n");
    let path = short.path().display().to_string();
    check(&[listen, ("peer.secret-file", &path)], &[], &["is an empty file"]);
    short.write("short\n");
    check(&[listen, ("peer.secret-file", &path)], &[], &["has a secret that is 5 bytes long; the secret of a cluster"]);
    short.write(&"x".repeat(5000));
    check(&[listen, ("peer.secret-file", &path)], &[], &["is larger than 4096 bytes"]);
    short.write("0123456789abcdef");
    check(&[listen, ("peer.secret-file", &path)], &[long], &["BELLROCK_PEER_SECRET and --peer.secret-file exclude"]);
}

#[test]
fn a_secret_is_no_flag_and_is_never_shown() {
    let planted = "planted-secret-0123456789";
    let file = File::new(&format!("peer: {{listen: '[::1]:0', secret: {planted}}}\n"));
    let loaded = Loaded::read(&surroundings(&[], &[], Some(&file.path()))).unwrap();
    assert_eq!(loaded.settings.cluster.peer_secret.as_ref().map(runtime::Secret::reveal), Some(planted));
    assert!(!format!("{loaded:?}").contains("planted"));
    let found = faults_of(&surroundings(&[("peer.secret", planted)], &[("BELLROCK_PEER_SECRET", "plant")], None));
    let expected = [
        "--peer.secret would be seen by everybody on this machine; use --peer.secret-file, or the variable \
         BELLROCK_PEER_SECRET",
        "BELLROCK_PEER_SECRET is 5 bytes long; the secret of a cluster has 16 or more",
    ];
    assert_eq!(found, expected);
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}
