//! Reads the JSON of `/api/v1/query` and `/api/v1/query_range`.
//!
//! JSON shows a native histogram by its buckets' bounds, not by schema and index, so histograms are not read back
//! into [`model`]: tests that need them look at the JSON itself.

use anyhow::{Context, Result, bail};
use model::{Labels, Samples, TimestampMs, Value};
use serde_json::Value as Json;

use crate::client::Response;
use crate::promqltest::{Answer, Data};

/// The answer in a response; the inner error is the query's, as the API words it.
pub fn read(response: &Response) -> Result<Result<Answer, String>> {
    let json: Json = serde_json::from_slice(&response.body)
        .with_context(|| format!("status {} with a body that is not JSON: {}", response.status, response.text()))?;
    if json["status"] == "error" {
        if response.status / 100 == 2 {
            bail!("an error with status {}", response.status);
        }
        return Ok(Err(json["error"].as_str().unwrap_or_default().to_owned()));
    }
    if response.status != 200 || json["status"] != "success" {
        bail!("status {} with {}", response.status, response.text());
    }
    let texts = |name: &str| -> Vec<String> {
        let list = json[name].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let data = read_data(&json["data"])?;
    Ok(Ok(Answer { data, warnings: texts("warnings"), infos: texts("infos") }))
}

fn read_data(json: &Json) -> Result<Data> {
    let result = &json["result"];
    match json["resultType"].as_str() {
        Some("scalar") => Ok(Data::Scalar(point(result)?.1)),
        Some("string") => Ok(Data::String(result[1].as_str().context("a string")?.to_owned())),
        Some("vector") => {
            let one = |json: &Json| Ok((labels(&json["metric"])?, Value::Float(point(&json["value"])?.1)));
            Ok(Data::Vector(list(result)?.iter().map(one).collect::<Result<_>>()?))
        }
        Some("matrix") => {
            let one = |json: &Json| Ok((labels(&json["metric"])?, samples(&json["values"])?));
            Ok(Data::Matrix(list(result)?.iter().map(one).collect::<Result<_>>()?))
        }
        other => bail!("unknown result type {other:?}"),
    }
}

fn list(json: &Json) -> Result<&Vec<Json>> {
    json.as_array().with_context(|| format!("expected a list, not {json}"))
}

fn labels(json: &Json) -> Result<Labels> {
    let object = json.as_object().context("a metric is an object")?;
    let pairs = object.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
    Ok(Labels::from_pairs(pairs)?)
}

fn samples(json: &Json) -> Result<Samples> {
    let mut samples = Samples::default();
    for json in list(json)? {
        let (t, v) = point(json)?;
        samples.push_float(t, v);
    }
    Ok(samples)
}

/// `[seconds, "value"]`
fn point(json: &Json) -> Result<(TimestampMs, f64)> {
    let t = json[0].as_f64().with_context(|| format!("expected [time, value], not {json}"))?;
    let v = json[1].as_str().with_context(|| format!("expected [time, value], not {json}"))?;
    Ok(((t * 1000.0).round() as i64, v.parse().with_context(|| format!("value {v:?}"))?))
}
