//! What programs of the same user ask of the process that serves a data folder, by the socket in it.
//!
//! One line of JSON asks; lines of JSON answer until the matter is over. Whoever goes away early stops nothing, and may ask
//! again. The socket is the user's own (`runtime::listen_in`), so that credentials may pass by it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bucket::{Location, Remote};
use runtime::{Clock, Secret, Shutdown, Stage};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::mover::{Mover, State};

/// A question is shorter: a URL, credentials, perhaps certificates.
const QUESTION_BYTES_MAX: u64 = 1 << 20;

/// An answer's line is shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How often a program is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A program asks at once, and takes what it is told.
const LINE_LIMIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Move the bucket to here.
    Migrate(Target),
}

/// A place, with what opens it: no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    ca_pem: Option<Vec<u8>>,
    credentials: Vec<(String, String)>,
}

/// What is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// How far it is.
    Progress(String),
    /// It is done.
    Done(String),
    /// It is not done, and will not be.
    Failed(String),
}

impl Target {
    /// As it is sent.
    pub fn of(location: &Location) -> Target {
        let none = |url: String| Target {
            url,
            endpoint: None,
            region: None,
            path_style: None,
            ca_pem: None,
            credentials: Vec::new(),
        };
        match location {
            Location::Own(path) | Location::Shared(path) => none(format!("file://{}", path.display())),
            Location::Remote(remote) => Target {
                endpoint: remote.endpoint.clone(),
                region: remote.region.clone(),
                path_style: remote.path_style,
                ca_pem: remote.ca_pem.clone(),
                credentials: (remote.credentials.iter())
                    .map(|(name, secret)| (name.clone(), secret.reveal().to_owned()))
                    .collect(),
                ..none(format!("{}://{}/{}", remote.protocol.scheme(), remote.name, remote.prefix))
            },
        }
    }

    /// As it came.
    pub fn location(self) -> Result<Location, String> {
        let credentials = self.credentials.into_iter().map(|(name, text)| (name, Secret::new(text))).collect();
        let (endpoint, region, path_style, ca_pem) = (self.endpoint, self.region, self.path_style, self.ca_pem);
        match Location::parse(&self.url).map_err(|what| format!("{} {what}", self.url))? {
            Location::Remote(remote) => {
                Ok(Location::Remote(Remote { endpoint, region, path_style, ca_pem, credentials, ..remote }))
            }
            location => Ok(location),
        }
    }
}

/// Answers until the process stops.
pub async fn serve(listener: UnixListener, mover: Mover, clock: std::sync::Arc<dyn Clock>, shutdown: Shutdown) {
    loop {
        let stream = tokio::select! {
            () = shutdown.reached(Stage::Draining) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a program in the data folder is not heard");
                    clock.sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
        };
        let (mover, clock) = (mover.clone(), clock.clone());
        runtime::spawn(async move {
            if let Err(error) = answer(stream, &mover, &*clock).await {
                tracing::debug!(%error, "a program in the data folder went away");
            }
        });
    }
}

async fn answer(stream: UnixStream, mover: &Mover, clock: &dyn Clock) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(QUESTION_BYTES_MAX));
    runtime::timeout(clock, LINE_LIMIT, reader.read_until(b'\n', &mut line)).await??;
    let begun = match serde_json::from_slice(&line) {
        Ok(Question::Migrate(target)) => match target.location() {
            Ok(location) => mover.begin(location).await,
            Err(why) => Err(why),
        },
        // The text may hold credentials: what is wrong with it is told, it is not.
        Err(error) => Err(format!("this process does not take that: is it of another version? {error}")),
    };
    let mut state = match begun {
        Ok(state) => state,
        Err(why) => return tell(&mut writer, clock, Answer::Failed(why)).await,
    };
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            State::Idle => {}
            State::Moving { .. } => tell(&mut writer, clock, Answer::Progress(now.text())).await?,
            State::Moved { .. } => return tell(&mut writer, clock, Answer::Done(now.text())).await,
            State::Failed(why) => return tell(&mut writer, clock, Answer::Failed(why)).await,
        }
        tokio::select! {
            over = state.wait_for(|state| matches!(state, State::Moved { .. } | State::Failed(_))) => drop(over?),
            () = clock.sleep(PROGRESS_EVERY) => {}
        }
    }
}

async fn tell(writer: &mut (impl AsyncWriteExt + Unpin), clock: &dyn Clock, answer: Answer) -> Result<()> {
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    Ok(runtime::timeout(clock, LINE_LIMIT, writer.write_all(&line)).await??)
}

/// Asks the process that serves `data`, and hands each answer but the last to `told`.
pub async fn ask(data: &Path, question: &Question, mut told: impl FnMut(&str)) -> Result<String> {
    let stream = match runtime::connect_in(data).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            bail!(
                "no process serves {}: start bellrock serve first, it goes on meanwhile (not-serving)",
                data.display()
            )
        }
        Err(error) => return Err(error).with_context(|| format!("reach the process that serves {}", data.display())),
    };
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    let mut reader = BufReader::new(reader);
    loop {
        line.clear();
        (&mut reader).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            bail!("the process that serves {} has ended; ask again when it serves (not-serving)", data.display());
        }
        match serde_json::from_slice(&line).context("the serving process says what this program does not know")? {
            Answer::Progress(text) => told(&text),
            Answer::Done(text) => return Ok(text),
            Answer::Failed(why) => bail!(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bucket::Protocol;

    #[test]
    fn a_target_comes_as_it_was_sent() {
        let remote = Remote {
            endpoint: Some("http://[::1]:3900".into()),
            region: Some("garage".into()),
            path_style: Some(true),
            ca_pem: Some(b"pem".to_vec()),
            credentials: vec![("AWS_SECRET_ACCESS_KEY".into(), Secret::new("hunter2"))],
            ..Remote::new(Protocol::S3, "metrics", "a/b")
        };
        for location in [
            Location::Remote(remote),
            Location::Remote(Remote::new(Protocol::Gcs, "metrics", "")),
            Location::Shared("/srv/metrics".into()),
        ] {
            let text = serde_json::to_string(&Question::Migrate(Target::of(&location))).unwrap();
            let Question::Migrate(target) = serde_json::from_str(&text).unwrap();
            assert_eq!(target.location().unwrap(), location);
        }
        assert!(serde_json::from_str::<Question>(r#"{"migrate":{"url":"s3://m"}}"#).is_err());
    }
}
