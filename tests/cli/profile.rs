//! A profile of the shared AWS files, asked for by its name.

use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY, Weed};

use crate::place::{Place, finished};

#[test]
fn the_keys_of_the_profile_count_and_not_those_of_the_environment() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let weed = runtime.block_on(async {
        let weed = Weed::start().await.unwrap();
        weed.make_bucket("kept").await.unwrap();
        weed.put("kept", "one", b"1".to_vec()).await.unwrap();
        weed
    });
    let place = Place::new();
    let keys = |key: &str| format!("aws_access_key_id = {key}\naws_secret_access_key = {SECRET_KEY}\n");
    place.write("credentials", &format!("[default]\n{}[ops]\n{}", keys("nobody"), keys(ACCESS_KEY)));
    place.write("config", "");
    let endpoint = weed.bucket("kept")["endpoint"].as_str().unwrap().to_owned();
    for (profile, code) in [("profile: ops", 0), ("profile: default", 4), ("profile: absent", 4), ("", 4)] {
        place.runbook(
            "count",
            &format!(
                "connections:\n  store: {{ type: s3, bucket: kept, endpoint: \"{endpoint}\", {profile} }}\n\
                 collections:\n  all: {{ type: s3-objects, connection: store, contents: false }}\nsteps:\n\
                 \x20 - {{ id: count, uses: count, with: {{ collections: [all], expect: 1 }} }}\n"
            ),
        );
        let mut command = place.command(&["exec", "count.yaml"]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", place.path("credentials"));
        command.env("AWS_CONFIG_FILE", place.path("config")).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "somebody").env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let ran = finished(command.output().unwrap());
        assert_eq!(ran.code, code, "{profile}: {}", ran.err);
        assert!(!ran.err.contains(SECRET_KEY), "{}", ran.err);
    }
}
