//! Which object a URL leads to. Only what surely is in this bucket has a key: anything else is somebody else's.

use runbook_engine::error::StepError;
use url::Url;

use crate::connections::s3::S3;

/// Where a bucket is known.
pub(super) struct Places {
    bucket: String,
    /// Stores that hold it: host and port, as [`authority`] has them, with the path below which they answer.
    stores: Vec<(String, String)>,
    /// Whether the hosts of AWS lead to it, in whichever region: names of buckets are unique there.
    aws: bool,
}

impl Places {
    /// The store of the connection, and further ones.
    pub(super) fn new(bucket: &S3, further: &[String]) -> Result<Self, StepError> {
        let mut places =
            Self { bucket: bucket.bucket().to_owned(), stores: Vec::new(), aws: bucket.endpoint().is_none() };
        places.stores.extend(bucket.endpoint().and_then(place));
        for text in further {
            let url = Url::parse(text)
                .map_err(|error| StepError::invalid(format!("`{text}` in `public_endpoints`: {error}")))?;
            places.aws |= url.host_str().is_some_and(is_aws);
            places.stores.extend(place(&url));
        }
        Ok(places)
    }

    /// The key of the object that `text` leads to: `s3://BUCKET/KEY` as it stands; of `http` and `https` the path, decoded, with the bucket
    /// before it or in the host.
    pub(super) fn key(&self, text: &str) -> Result<String, String> {
        // A parser of URLs drops some of them, and whoever wrote them did not mean them.
        if text.trim() != text || text.contains(char::is_control) {
            return Err("it has whitespace or control characters that are no part of a URL".to_owned());
        }
        let key = match text.strip_prefix("s3://") {
            Some(rest) => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                self.is_ours(bucket)?;
                key.to_owned()
            }
            None => self.http(text)?,
        };
        if key.trim().is_empty() { Err("it names no object".to_owned()) } else { Ok(key) }
    }

    fn http(&self, text: &str) -> Result<String, String> {
        let url = Url::parse(text).map_err(|_| "it is no URL".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("its scheme is {}", url.scheme()));
        }
        if text.contains('\\') {
            return Err("it has a backslash, which is a slash to some and itself to others".to_owned());
        }
        let (host, path) = (authority(&url), raw_path(text)?);
        for (store, base) in &self.stores {
            let below =
                || path.strip_prefix(base.as_str()).ok_or_else(|| format!("it is not below {store}{base}"));
            if host == *store {
                return self.in_path(below()?);
            }
            if host.strip_suffix(store.as_str()).and_then(|rest| rest.strip_suffix('.')) == Some(&self.bucket)
            {
                return decoded(below()?);
            }
        }
        if self.aws && url.port().is_none() {
            if is_aws(&host) {
                return self.in_path(path.strip_prefix('/').unwrap_or(path));
            }
            let rest = host.strip_prefix(&self.bucket).and_then(|rest| rest.strip_prefix('.'));
            if rest.is_some_and(is_aws) {
                return decoded(path.strip_prefix('/').unwrap_or(path));
            }
        }
        Err(format!("the host {host} is not where the bucket is"))
    }

    /// The key behind the bucket.
    fn in_path(&self, path: &str) -> Result<String, String> {
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        self.is_ours(&decoded(bucket)?)?;
        decoded(key)
    }

    fn is_ours(&self, bucket: &str) -> Result<(), String> {
        if bucket == self.bucket { Ok(()) } else { Err(format!("the bucket {bucket:?} is another one")) }
    }
}

/// A store, by where it answers: its path ends with `/`.
fn place(url: &Url) -> Option<(String, String)> {
    url.host_str()?;
    Some((authority(url), format!("{}/", url.path().trim_end_matches('/'))))
}

/// The host, with the port when it is not the usual one of the scheme: behind a proxy the same store is `http` to one and `https` to another.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a host is one of S3 at AWS, without a bucket in it.
fn is_aws(host: &str) -> bool {
    let rest = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"));
    let Some(rest) = rest else { return false };
    let (service, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let rest = rest.strip_prefix("dualstack").map_or(rest, |rest| rest.strip_prefix('.').unwrap_or(rest));
    match service {
        "s3" | "s3-fips" => rest.is_empty() || is_region(rest),
        "s3-accelerate" | "s3-external-1" => rest.is_empty(),
        // An old form, with the region in the name of the service.
        _ => rest.is_empty() && service.strip_prefix("s3-").is_some_and(is_region),
    }
}

/// Whether a name is formed like a region of AWS: `eu-west-1`, `us-gov-east-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let [country, middle @ .., number] = parts.as_slice() else { return false };
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    country.len() == 2
        && letters(country)
        && !middle.is_empty()
        && middle.iter().all(letters)
        && number.len() <= 2
        && number.parse::<u8>().is_ok()
}

/// The path as it is written, because a parser of URLs takes `..` for the way up, and a key may hold it.
fn raw_path(text: &str) -> Result<&str, String> {
    let rest = text.split_once("://").map(|(_, rest)| rest).ok_or("it is no URL")?;
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    Ok(rest.find('/').map_or("/", |at| &rest[at..]))
}

/// A text without its percent signs. One that stands for nothing stays.
fn decoded(text: &str) -> Result<String, String> {
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).map_err(|_| "its path is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(endpoint: Option<&str>, further: &[&str]) -> Places {
        let all = endpoint.iter().chain(further).map(|text| Url::parse(text).unwrap());
        let stores: Vec<_> = all.filter_map(|url| place(&url)).collect();
        let aws = endpoint.is_none() || further.iter().any(|text| text.contains("amazonaws.com"));
        Places { bucket: "real-staging".to_owned(), stores, aws }
    }

    #[test]
    fn every_form_of_a_url_leads_to_its_key() {
        let own = places(
            Some("http://minio-s3:9000"),
            &["https://files.example.com/s3", "https://s3.amazonaws.com"],
        );
        for (text, key) in [
            ("s3://real-staging/staged/abcd1234/x.jpg", "staged/abcd1234/x.jpg"),
            ("s3://real-staging/a%20b?c", "a%20b?c"),
            ("http://minio-s3:9000/real-staging/uploads/u/a.jpg", "uploads/u/a.jpg"),
            ("https://minio-s3:9000/real-staging/uploads/u/a.jpg?X-Amz-Signature=1#f", "uploads/u/a.jpg"),
            ("http://minio-s3:9000/real-staging/a%20b%2Fc+d%C3%A9%", "a b/c+dé%"),
            ("http://minio-s3:9000/real-staging/a/../b//c", "a/../b//c"),
            ("HTTP://MINIO-S3:9000/real-staging/Case", "Case"),
            ("http://real-staging.minio-s3:9000/uploads/a", "uploads/a"),
            ("http://files.example.com/s3/real-staging/a", "a"),
            ("https://s3.us-west-1.amazonaws.com/real-staging/a", "a"),
            ("https://real-staging.s3.amazonaws.com/real-staging/a", "real-staging/a"),
            ("https://real-staging.s3.eu-central-1.amazonaws.com/a", "a"),
            ("https://real-staging.s3-us-west-2.amazonaws.com/a", "a"),
        ] {
            assert_eq!(own.key(text).as_deref(), Ok(key), "{text}");
        }
    }

    #[test]
    fn what_is_not_surely_ours_has_no_key() {
        let own = places(Some("http://localhost:9000"), &[]);
        for text in [
            "",
            "uploads/a.jpg",
            "/real-staging/a",
            "s3://real-staging",
            "s3://real-staging/",
            "s3://other/a",
            "s3://real-staging-2/a",
            "http://localhost:9000/other/a",
            "http://localhost:9000/real-staging",
            "http://localhost:9000/real-staging/",
            "http://localhost:9000/",
            "http://localhost:4566/real-staging/a",
            "http://localhost/real-staging/a",
            "http://evil-localhost:9000/real-staging/a",
            "http://real-staging.localhost:9000.example.com/a",
            "https://real-staging.s3.amazonaws.com/a",
            "https://cdn.example.com/real-staging/a",
            "http://localhost:9000/real-staging/%FF",
            "ftp://localhost:9000/real-staging/a",
            "data:image/png;base64,AA==",
            "http://localhost:9000/real-staging/a.jpg ",
            " http://localhost:9000/real-staging/a.jpg",
            "http://localhost:9000/real-staging/a.jpg\n",
            "http://localhost:9000/real-staging/pl\nain.jpg",
            "http://localhost:9000/real-staging/a\tb",
            "http://localhost:9000/real-staging/a\\b",
            "s3://real-staging/a.jpg\r\n",
        ] {
            assert!(own.key(text).is_err(), "{text} is {:?}", own.key(text));
        }
        let aws = places(None, &[]);
        for text in [
            "https://s3.amazonaws.com.evil.com/real-staging/a",
            "https://real-staging.s3.example.com/a",
            "https://x.real-staging.s3.amazonaws.com/a",
            "https://s3-other.s3.amazonaws.com/real-staging/a",
            "https://s3.other-bucket.s3.eu-west-1.amazonaws.com/real-staging/a",
            "https://s3.eu-west-1.s3.amazonaws.com/real-staging/a",
            "https://s3-eu-west-1.s3.amazonaws.com/real-staging/a",
            "https://s3-other.amazonaws.com/real-staging/a",
        ] {
            assert!(aws.key(text).is_err(), "{text}");
        }
        for text in [
            "https://s3.dualstack.eu-west-1.amazonaws.com/real-staging/a",
            "https://s3-fips.us-gov-east-1.amazonaws.com/real-staging/a",
            "https://real-staging.s3-accelerate.dualstack.amazonaws.com/a",
            "https://s3.cn-north-1.amazonaws.com.cn/real-staging/a",
        ] {
            assert_eq!(aws.key(text).as_deref(), Ok("a"), "{text}");
        }
        let told = own.key("http://localhost:4566/real-staging/a?X-Amz-Signature=secret").unwrap_err();
        assert!(told.contains("localhost:4566") && !told.contains("secret"), "{told}");
    }
}
