//! What the command line asks for.

use crate::settings::sources::Fault;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Serve {
        /// With these flags: (`querier.timeout`, `30s`), in their order, not yet checked.
        flags: Vec<(String, String)>,
        /// Words that are no command, and flags without a value; told together with what is wrong with the flags.
        faults: Vec<Fault>,
    },
    /// Try the bucket's store.
    BucketCheck {
        /// As above.
        flags: Vec<(String, String)>,
        /// As above.
        faults: Vec<Fault>,
    },
    /// Rebuild the index from the bucket.
    Recover {
        /// As above.
        flags: Vec<(String, String)>,
        /// As above.
        faults: Vec<Fault>,
    },
    /// Ask a running node how the cluster is.
    Status {
        /// Where it is; `None`: where the settings have it listen.
        url: Option<String>,
        /// As above.
        flags: Vec<(String, String)>,
        /// As above.
        faults: Vec<Fault>,
    },
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// Reads the arguments after the program's name. `--flag value` and `--flag=value` are the same.
pub fn parse(arguments: &[String]) -> Command {
    let is_any = |words: &[&str]| arguments.iter().any(|argument| words.contains(&argument.as_str()));
    if is_any(&["--help", "-h"]) || arguments.first().is_some_and(|first| first == "help") {
        return Command::Help;
    }
    if is_any(&["--version", "-V"]) {
        return Command::Version;
    }
    let mut flags = Vec::new();
    let mut faults = Vec::new();
    let mut rest = arguments.iter().peekable();
    let (mut is_check, mut is_recover, mut is_status, mut url) = (false, false, false, None);
    if rest.next_if(|first| *first == "bucket").is_some() {
        match rest.next_if(|second| *second == "check") {
            Some(_) => is_check = true,
            None => faults.push(Fault("bucket wants to be told what to do: bellrock bucket check".to_string())),
        }
    } else if rest.next_if(|first| *first == "recover").is_some() {
        is_recover = true;
    } else if rest.next_if(|first| *first == "status").is_some() {
        is_status = true;
        url = rest.next_if(|second| second.starts_with("http")).cloned();
    } else {
        rest.next_if(|first| *first == "serve");
    }
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
            faults.push(Fault(format!("{argument:?} is neither a command nor a --flag")));
            continue;
        };
        if let Some((key, text)) = flag.split_once('=') {
            flags.push((key.to_string(), text.to_string()));
        } else if let Some(text) = rest.next_if(|next| !next.starts_with('-')) {
            flags.push((flag.to_string(), text.clone()));
        } else {
            faults.push(Fault(format!("{argument} has no value")));
        }
    }
    match (is_check, is_recover, is_status) {
        (true, ..) => Command::BucketCheck { flags, faults },
        (_, true, _) => Command::Recover { flags, faults },
        (.., true) => Command::Status { url, flags, faults },
        _ => Command::Serve { flags, faults },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, flags: &[(&str, &str)], faults: &[&str]) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let expected = Command::Serve {
            flags: flags.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect(),
            faults: faults.iter().map(|fault| Fault(fault.to_string())).collect(),
        };
        assert_eq!(parse(&arguments), expected, "{line}");
    }

    #[test]
    fn flags_take_their_value_from_both_forms() {
        check("", &[], &[]);
        check("serve", &[], &[]);
        check("serve --data /x --listen=a --listen b", &[("data", "/x"), ("listen", "a"), ("listen", "b")], &[]);
        check("--data=a=b", &[("data", "a=b")], &[]);
    }

    #[test]
    fn every_fault_is_listed() {
        let faults = [
            "\"server\" is neither a command nor a --flag",
            "--data has no value",
            "--x has no value",
            "\"-v\" is neither a command nor a --flag",
        ];
        check("server --data --x -v --retention 1d", &[("retention", "1d")], &faults);
    }

    #[test]
    fn bucket_check_takes_the_same_flags() {
        let parse = |line: &str| parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>());
        let flags = vec![("bucket".to_string(), "s3://m".to_string())];
        assert_eq!(parse("bucket check --bucket s3://m"), Command::BucketCheck { flags, faults: vec![] });
        check("bucket --data x", &[("data", "x")], &["bucket wants to be told what to do: bellrock bucket check"]);
    }

    #[test]
    fn status_may_be_told_whom_to_ask() {
        let parse = |line: &str| parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>());
        let status = |url: Option<&str>, flags: &[(&str, &str)], faults: &[&str]| Command::Status {
            url: url.map(str::to_string),
            flags: flags.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect(),
            faults: faults.iter().map(|fault| Fault(fault.to_string())).collect(),
        };
        assert_eq!(parse("status"), status(None, &[], &[]));
        assert_eq!(parse("status http://a:1"), status(Some("http://a:1"), &[], &[]));
        assert_eq!(parse("status --listen b:2"), status(None, &[("listen", "b:2")], &[]));
        assert_eq!(parse("status x"), status(None, &[], &["\"x\" is neither a command nor a --flag"]));
    }

    #[test]
    fn help_and_version_win_over_everything() {
        let parse = |line: &str| parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>());
        assert_eq!(parse("serve --nonsense --help"), Command::Help);
        assert_eq!(parse("help"), Command::Help);
        assert_eq!(parse("-V"), Command::Version);
    }
}
