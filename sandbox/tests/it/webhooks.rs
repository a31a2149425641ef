use aws_lc_rs::hmac;
use serde_json::json;

use crate::client::Sandbox;

fn signature(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    format!("sha256={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[tokio::test]
async fn a_webhook_is_verified_over_its_raw_body_and_kept() {
    let sandbox = Sandbox::few().await;
    let send = async |signature: Option<String>, body: &str| {
        let mut request =
            sandbox.http.post(format!("{}/webhook", sandbox.control_url())).body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header("X-Runbook-Signature", signature);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let body = json!({ "text": "attachments are frozen" }).to_string();
    let right = signature(sandbox.notify_secret(), body.as_bytes());
    assert_eq!(send(Some(right.clone()), &body).await, 200);
    assert_eq!(send(Some(right.clone()), &body.replace("frozen", "back")).await, 401);
    assert_eq!(send(Some(signature("another secret", body.as_bytes())), &body).await, 401);
    assert_eq!(send(Some("sha256=zz".into()), &body).await, 401);
    assert_eq!(send(None, &body).await, 401);
    sandbox.fault_webhooks(1, 503).await.unwrap();
    assert_eq!(send(Some(right.clone()), &body).await, 503);
    assert_eq!(send(Some(right.clone()), &body).await, 200);

    let received = sandbox.webhooks().await.unwrap();
    let verified: Vec<_> = received.iter().map(|hook| (hook.verified, hook.status)).collect();
    assert_eq!(
        verified,
        [(true, 200), (false, 401), (false, 401), (false, 401), (false, 401), (true, 503), (true, 200)]
    );
    assert_eq!(received[0].body, body);
    assert_eq!(received[0].headers["x-runbook-signature"], right);
    assert!(received.is_sorted_by_key(|hook| hook.at.clone()));
}
