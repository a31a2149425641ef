//! What of a lifecycle the client library does not know, and would leave out when the rules are written again.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use xmlparser::{ElementEnd, Token, Tokenizer};

/// Keeps the body of the answer, as the store sent it.
#[derive(Clone, Debug, Default)]
pub(super) struct Body(Arc<Mutex<Vec<u8>>>);

impl Body {
    /// What the store sent.
    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Intercept for Body {
    fn name(&self) -> &'static str {
        "Body"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.response().body().bytes().ok_or("the answer is not kept in memory")?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        Ok(())
    }
}

/// Every element that is read and written back, by its path in a rule.
const KNOWN: &[&str] = &[
    "ID",
    "Prefix",
    "Status",
    "Filter",
    "Filter/Prefix",
    "Filter/Tag",
    "Filter/Tag/Key",
    "Filter/Tag/Value",
    "Filter/ObjectSizeGreaterThan",
    "Filter/ObjectSizeLessThan",
    "Filter/And",
    "Filter/And/Prefix",
    "Filter/And/Tag",
    "Filter/And/Tag/Key",
    "Filter/And/Tag/Value",
    "Filter/And/ObjectSizeGreaterThan",
    "Filter/And/ObjectSizeLessThan",
    "Expiration",
    "Expiration/Date",
    "Expiration/Days",
    "Expiration/ExpiredObjectDeleteMarker",
    "Transition",
    "Transition/Date",
    "Transition/Days",
    "Transition/StorageClass",
    "NoncurrentVersionTransition",
    "NoncurrentVersionTransition/NoncurrentDays",
    "NoncurrentVersionTransition/NewerNoncurrentVersions",
    "NoncurrentVersionTransition/StorageClass",
    "NoncurrentVersionExpiration",
    "NoncurrentVersionExpiration/NoncurrentDays",
    "NoncurrentVersionExpiration/NewerNoncurrentVersions",
    "AbortIncompleteMultipartUpload",
    "AbortIncompleteMultipartUpload/DaysAfterInitiation",
];

/// The elements of which there may be several side by side.
const SEVERAL: &[&str] = &["Transition", "NoncurrentVersionTransition", "Filter/And/Tag"];

/// The elements of a lifecycle that would be lost, each with the rule that it is in; what is no XML is one as a whole.
pub(super) fn unknown(xml: &str) -> Vec<String> {
    let (mut found, mut path): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    // Of the rule that is being read: what it is called, what would be lost of it, and what there was one of.
    let (mut id, mut lost, mut seen) = (String::new(), Vec::new(), Vec::new());
    for token in Tokenizer::from(xml) {
        let Ok(token) = token else { return vec!["an answer that is no XML".to_owned()] };
        match token {
            Token::ElementStart { local, .. } => {
                path.push(local.as_str());
                match path.as_slice() {
                    [_] | [_, "Rule"] => {}
                    [_, "Rule", within @ ..] => {
                        let within = within.join("/");
                        let again = seen.contains(&within) && !SEVERAL.contains(&within.as_str());
                        if again || !KNOWN.contains(&within.as_str()) {
                            lost.push(within.clone());
                        }
                        seen.push(within);
                    }
                    [_, outside @ ..] => found.push(format!("`{}` beside the rules", outside.join("/"))),
                    [] => {}
                }
            }
            Token::Text { text } if matches!(path.as_slice(), [_, "Rule", "ID"]) => {
                id = text.as_str().trim().to_owned();
            }
            Token::ElementEnd { end: ElementEnd::Close(..) | ElementEnd::Empty, .. } => {
                // What is below of one of several begins anew with the next.
                if let [_, "Rule", within @ ..] = path.as_slice() {
                    let below = format!("{}/", within.join("/"));
                    seen.retain(|one: &String| !one.starts_with(&below));
                }
                if matches!(path.as_slice(), [_, "Rule"]) {
                    let name = if id.is_empty() {
                        "the rule without an id".to_owned()
                    } else {
                        format!("rule `{id}`")
                    };
                    found.extend(lost.drain(..).map(|element| format!("`{element}` of {name}")));
                    id.clear();
                    seen.clear();
                }
                path.pop();
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &str) -> Vec<String> {
        unknown(&format!(
            r#"<?xml version="1.0"?><LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{rules}</LifecycleConfiguration>"#
        ))
    }

    #[test]
    fn what_is_known_is_no_loss() {
        let known = "<Rule><ID>a</ID><Filter><And><Prefix>x/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>\
                     <Tag><Key>l</Key><Value>w</Value></Tag></And></Filter><Status>Enabled</Status>\
                     <Transition><Days>1</Days><StorageClass>COLD</StorageClass></Transition>\
                     <Transition><Days>2</Days><StorageClass>ICE</StorageClass></Transition></Rule>\
                     <Rule><ID>b</ID><Prefix/><Status>Disabled</Status><Expiration><Days>3</Days></Expiration></Rule>";
        assert_eq!(of(known), [""; 0]);
        assert_eq!(of(""), [""; 0]);
    }

    #[test]
    fn what_is_not_known_is_named_with_its_rule() {
        let more = "<Rule><Expiration><Days>3</Days><ExpiredObjectAllVersions>true</ExpiredObjectAllVersions></Expiration>\
                    <ID>minio</ID></Rule><Rule><DelMarkerExpiration><Days>1</Days></DelMarkerExpiration></Rule><New/>";
        assert_eq!(
            of(more),
            [
                "`Expiration/ExpiredObjectAllVersions` of rule `minio`",
                "`DelMarkerExpiration` of the rule without an id",
                "`DelMarkerExpiration/Days` of the rule without an id",
                "`New` beside the rules",
            ]
        );
        let twice = "<Rule><ID>t</ID><Filter><Tag><Key>k</Key></Tag><Tag><Key>l</Key></Tag></Filter></Rule>";
        assert_eq!(of(twice), ["`Filter/Tag` of rule `t`"]);
        assert_eq!(unknown("<a><b").len(), 1);
    }
}
