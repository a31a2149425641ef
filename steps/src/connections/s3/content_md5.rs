//! An MD5 of the body where S3 asks for a checksum: older servers know no other, and the SDK sends none any more
//! (<https://github.com/aws/aws-sdk-java-v2/issues/5805>).

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// Adds `Content-MD5` to the requests that need one: deleting several objects, and setting the lifecycle.
#[derive(Debug)]
pub(super) struct ContentMd5;

impl Intercept for ContentMd5 {
    fn name(&self) -> &'static str {
        "ContentMd5"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let query = request.uri().split_once('?').map_or("", |(_, query)| query);
        let asks = query.split('&').any(|part| matches!(part.trim_end_matches('='), "delete" | "lifecycle"));
        if asks
            && matches!(request.method(), "POST" | "PUT")
            && let Some(body) = request.body().bytes()
        {
            let digest = STANDARD.encode(Md5::digest(body));
            request.headers_mut().insert("content-md5", digest);
        }
        Ok(())
    }
}
