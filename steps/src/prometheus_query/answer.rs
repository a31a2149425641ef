//! What the API of Prometheus answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The series of an answer, each with its labels and its values in the order of time, and what the server has to say of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) series: Vec<(BTreeMap<String, String>, Vec<f64>)>,
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Data,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// A time with a value, which stands as a text so that `NaN` and `+Inf` can be said.
type Sample = (f64, String);

#[derive(Deserialize)]
struct Instant {
    metric: BTreeMap<String, String>,
    value: Option<Sample>,
}

#[derive(Deserialize)]
struct Ranged {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Sample>,
}

impl Answer {
    /// Reads an answer; why it can not be read.
    pub(super) fn read(answer: Value) -> Result<Self, String> {
        let Envelope { status, data, warnings } = of(answer)?;
        if status != "success" {
            return Err(format!("the answer says `{status}`"));
        }
        let series = match data.kind.as_str() {
            "scalar" => vec![(BTreeMap::new(), vec![of::<Sample>(data.result)?])],
            "vector" => {
                let all: Vec<Instant> = of(data.result)?;
                all.into_iter().map(|one| (one.metric, one.value.into_iter().collect())).collect()
            }
            "matrix" => {
                let all: Vec<Ranged> = of(data.result)?;
                all.into_iter().map(|one| (one.metric, one.values)).collect()
            }
            kind => return Err(format!("the query gives a {kind}, and not numbers")),
        };
        let numbers = series.into_iter().map(|(labels, samples): (_, Vec<Sample>)| {
            let values = samples.iter().map(|(_, text)| number(text)).collect::<Result<_, _>>()?;
            Ok((labels, values))
        });
        Ok(Self { series: numbers.collect::<Result<_, String>>()?, warnings })
    }
}

fn of<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("the answer is not of Prometheus: {error}"))
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is no value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, result: Value) -> Result<Answer, String> {
        Answer::read(json!({ "status": "success", "data": { "resultType": kind, "result": result } }))
    }

    #[test]
    fn vectors_matrices_and_scalars_are_read_and_texts_are_not() {
        let labels = BTreeMap::from([("job".to_owned(), "api".to_owned())]);
        let one = read("vector", json!([{ "metric": { "job": "api" }, "value": [1.5, "0.25"] }])).unwrap();
        assert_eq!(one.series, [(labels.clone(), vec![0.25])]);
        let many = json!([{ "metric": { "job": "api" }, "values": [[1, "1"], [2, "2e3"]] }]);
        assert_eq!(read("matrix", many).unwrap().series, [(labels, vec![1.0, 2000.0])]);
        assert_eq!(read("scalar", json!([1, "7"])).unwrap().series, [(BTreeMap::new(), vec![7.0])]);
        let odd = read(
            "vector",
            json!([{ "metric": {}, "value": [1, "NaN"] }, { "metric": {}, "value": [1, "+Inf"] }]),
        );
        let odd = odd.unwrap().series;
        assert!(odd[0].1[0].is_nan() && odd[1].1[0].is_infinite());
        // A native histogram has no value of its own: no sample, and so no pass.
        let histogram = read("vector", json!([{ "metric": {}, "histogram": [1, {}] }])).unwrap();
        assert!(histogram.series[0].1.is_empty());
        assert!(read("string", json!([1, "x"])).unwrap_err().contains("string"));
        for wrong in
            [json!({}), json!({ "status": "error", "data": { "resultType": "vector", "result": [] } })]
        {
            assert!(Answer::read(wrong).is_err());
        }
    }
}
