//! `runbooks/ask-image-api.yaml`: the application's own reconciler is asked, and not believed.

use runbook_sandbox::chat::token;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY};
use runbook_sandbox::{Api, sandbox_binary};

use crate::{Bench, id, original, staged};

const SECRET: &str = "jwt secret of the tests";

/// The image API before the database and the store of a bench.
async fn api(bench: &Bench, enabled: &str) -> Api {
    let database = bench.database.url();
    let settings = [
        ("DATABASE_URL", database.as_ref()),
        ("S3_ENDPOINT", bench.proxy.url.as_str()),
        ("S3_REGION", "us-east-1"),
        ("S3_ACCESS_KEY", ACCESS_KEY),
        ("S3_SECRET_KEY", SECRET_KEY),
        ("JWT_SECRET", SECRET),
        ("RECONCILE_ENABLED", enabled),
    ];
    Api::start(&sandbox_binary().unwrap(), "image-api", &settings).await.unwrap()
}

/// Asks it with this token; what `runbook` said. No image is another one then.
async fn ask(bench: &Bench, api: &Api, code: i32, token: &str, inputs: &[&str]) -> String {
    let before = bench.images().await;
    let (url, endpoint) = (format!("api_url={}", api.url), format!("s3_endpoint={}", bench.proxy.url));
    let mut arguments = vec!["exec", "ask-image-api", "-i", &url, "-i", &endpoint, "-i", "known_key=known"];
    arguments.extend(inputs.iter().flat_map(|input| ["-i", *input]));
    let (got, said) = bench.run_with(&arguments, &[("IMAGE_API_TOKEN", token)]).await;
    assert_eq!(got, code, "{said}");
    assert_eq!(bench.images().await, before, "nothing is changed:\n{said}");
    said
}

#[tokio::test]
async fn an_answer_that_is_so_is_believed_and_one_that_is_not_stops_the_run() {
    let bench = Bench::start(12).await;
    let api = api(&bench, "1").await;
    let right = token(SECRET, "auth0|test");

    // Every staged file is there, and the API does not see one of them.
    let said = ask(&bench, &api, 4, &right, &[]).await;
    assert!(said.contains("the API calls 4 staged files missing, and 0 are"), "{said}");

    // As URLs that it can read. One image lacks its original, one both.
    let plain = format!("{}/real-staging/", bench.proxy.url);
    bench
        .execute(&format!(
            "update images set staged_url = replace(staged_url, 's3://real-staging/', '{plain}')"
        ))
        .await;
    bench.lose(&original(1)).await;
    bench.lose(&original(3)).await;
    bench.lose(&staged(3)).await;
    ask(&bench, &api, 0, &right, &[]).await;

    // It never goes on after its first page.
    let said = ask(&bench, &api, 4, &right, &["limit=5"]).await;
    assert!(said.contains("the API looked at 5 of 12 images"), "{said}");

    // An image in error and without a file would get another text.
    bench
        .execute(&format!(
            "update images set status = 'error', error = 'the model failed' where id = '{}'",
            id(1)
        ))
        .await;
    ask(&bench, &api, 0, &right, &[]).await;
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_api() {
    let bench = Bench::start(3).await;
    let off = api(&bench, "0").await;
    let said = ask(&bench, &off, 4, &token(SECRET, "auth0|test"), &[]).await;
    assert!(said.contains("501") && said.contains("reconciliation is not enabled"), "{said}");
    let said = ask(&bench, &off, 4, &token("another secret", "auth0|test"), &[]).await;
    assert!(said.contains("401") && said.contains("Invalid or missing JWT token"), "{said}");
}
