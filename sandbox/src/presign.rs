//! URLs of an S3 store that carry their own signature (AWS Signature Version 4).

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_lc_rs::hmac;
use reqwest::Url;

use crate::crypto::{hex, sha256_hex};

/// A bucket, and who asks for what is in it.
pub(crate) struct Bucket {
    /// Where the store answers.
    pub(crate) endpoint: Url,
    /// Its name, which stands in the path.
    pub(crate) name: String,
    /// The region that is signed for.
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// Percent-encodes as signatures want it; `/` is kept where it separates.
fn encoded(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                out.push('%');
                out.push_str(&hex(&[byte]).to_uppercase());
            }
        }
    }
    out
}

impl Bucket {
    /// A URL at which this object, or with an empty key the bucket, takes one method for so many seconds.
    pub(crate) fn presigned(
        &self,
        method: &str,
        key: &str,
        more: &[(&str, &str)],
        seconds: u32,
    ) -> anyhow::Result<Url> {
        let now = jiff::Timestamp::now();
        let (day, time) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let host = self.endpoint.host_str().context("the endpoint has no host")?;
        let host = self.endpoint.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let slash = if key.is_empty() { "" } else { "/" };
        let path = format!("/{}{slash}{}", encoded(&self.name, false), encoded(key, true));
        let mut query = BTreeMap::from([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{scope}", self.access_key)),
            ("X-Amz-Date", time.clone()),
            ("X-Amz-Expires", seconds.to_string()),
            ("X-Amz-SignedHeaders", "host".to_owned()),
        ]);
        query.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
            .collect();
        let query = query.join("&");
        let request = format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
        let signed = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256_hex(request.as_bytes()));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [day.as_str(), &self.region, "s3", "aws4_request", &signed] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        let scheme = self.endpoint.scheme();
        Ok(Url::parse(&format!("{scheme}://{host}{path}?{query}&X-Amz-Signature={}", hex(&key)))?)
    }
}
