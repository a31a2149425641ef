//! One environment: the chat API, the Prometheus that measures it, and their bucket.

use std::sync::Arc;

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration,
    LifecycleRule, LifecycleRuleFilter,
};
use runbook_engine::redact::Redactor;
use runbook_sandbox::prometheus::PrometheusServer;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY};
use runbook_sandbox::{Api, sandbox_binary};
use runbook_steps::connections::s3::S3;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value};

use crate::{Bench, JWT_SECRET};

/// An environment whose servers have names, but of the sandbox, which is this machine.
pub struct Site {
    environment: String,
    bucket: String,
    app: String,
    s3: String,
    prometheus: String,
    /// The bucket as a person sees it.
    pub store: Arc<S3>,
    _api: Api,
    _server: PrometheusServer,
}

impl Site {
    /// Starts the servers, with these settings of the API beside the right ones.
    pub async fn start(bench: &Bench, environment: &str, bucket: &str, settings: &[(&str, &str)]) -> Self {
        let named = |what: &str, url: &str| match environment {
            "sandbox" => url.to_owned(),
            _ => bench.names.call(&format!("{what}.{environment}.example"), url),
        };
        let s3 = named("s3", &bench.weed.url);
        let own = [
            ("JWT_SECRET", JWT_SECRET),
            ("CHAT_ATTACHMENT_STORAGE_BACKEND", "s3"),
            ("S3_ENDPOINT", s3.as_str()),
            ("S3_BUCKET", bucket),
            ("APP_ENV", environment),
            ("S3_ACCESS_KEY", ACCESS_KEY),
            ("S3_SECRET_KEY", SECRET_KEY),
            ("HTTP_PROXY", bench.names.url.as_str()),
            ("NO_PROXY", "127.0.0.1"),
        ];
        let api =
            Api::start(&sandbox_binary().unwrap(), "chat-api", &[&own, settings].concat()).await.unwrap();
        let address = api.url.trim_start_matches("http://");
        let server = PrometheusServer::start(&[("gotong-api", address)]).await.unwrap();
        Self {
            environment: environment.to_owned(),
            bucket: bucket.to_owned(),
            app: named("app", &api.url),
            s3,
            prometheus: named("prometheus", &server.url()),
            store: store(bench.weed.bucket(bucket)),
            _api: api,
            _server: server,
        }
    }

    /// The inputs that are right for it.
    pub fn inputs(&self, bench: &Bench) -> Vec<String> {
        let sandbox = self.environment == "sandbox";
        let github = if sandbox { bench.github.as_str() } else { "http://github.example" };
        let mut inputs = vec![
            format!("environment={}", self.environment),
            format!("app_url={}", self.app),
            format!("s3_endpoint={}", self.s3),
            format!("bucket={}", self.bucket),
            "region=us-east-1".to_owned(),
            format!("prometheus_url={}", self.prometheus),
            "metrics_job=gotong-api".to_owned(),
            "metrics_wait=2s".to_owned(),
            // How fast a machine that runs tests is says nothing.
            "max_p95_seconds=60".to_owned(),
            format!("github_url={github}"),
            "repository=gotong/royong".to_owned(),
            format!("evidence_dir={}", bench.path("evidence").display()),
            // It runs in no cluster.
            "running_command=[]".to_owned(),
            "log_command=[]".to_owned(),
        ];
        if !sandbox {
            inputs.push(format!("app_dir={}", bench.path("app").display()));
            inputs.push(format!("preflight_report={}", bench.path("preflight.json").display()));
            inputs.push(format!("kubeconfig={}", bench.path("kubeconfig").display()));
            inputs.push(format!("kubernetes_context={}", self.environment));
            inputs.push(format!(
                "kubernetes_namespace={}",
                runbook_sandbox::application::monitoring(&self.environment)
            ));
        }
        inputs
    }

    /// The rules of the bucket: prefix and days of each.
    pub async fn rules(&self) -> Vec<(String, i32)> {
        let client = self.store.client().await;
        let request = client.get_bucket_lifecycle_configuration().bucket(self.store.bucket());
        let Ok(found) = request.send().await else { return Vec::new() };
        let one = |rule: &LifecycleRule| {
            let prefix = rule.filter().and_then(LifecycleRuleFilter::prefix).unwrap_or_default().to_owned();
            (prefix, rule.expiration().and_then(LifecycleExpiration::days).unwrap_or_default())
        };
        let mut rules: Vec<(String, i32)> = found.rules().iter().map(one).collect();
        rules.sort();
        rules
    }

    /// Sets the rules of the bucket, each by its prefix and its days.
    pub async fn set_rules(&self, rules: &[(&str, i32)]) {
        let one = |(prefix, days): &(&str, i32)| {
            let rule =
                LifecycleRule::builder().id(prefix.replace('/', "-")).status(ExpirationStatus::Enabled);
            let rule = rule.filter(LifecycleRuleFilter::builder().prefix(*prefix).build());
            rule.expiration(LifecycleExpiration::builder().days(*days).build()).build().unwrap()
        };
        let whole = BucketLifecycleConfiguration::builder().set_rules(Some(rules.iter().map(one).collect()));
        let client = self.store.client().await;
        let request = client.put_bucket_lifecycle_configuration().bucket(self.store.bucket());
        request.lifecycle_configuration(whole.build().unwrap()).send().await.unwrap();
    }

    /// Sets a rule that ends uploads below a prefix that were never finished, and expires nothing.
    pub async fn tidy_uploads(&self, prefix: &str) {
        let rule = LifecycleRule::builder().id("tidy-uploads").status(ExpirationStatus::Enabled);
        let rule = rule.filter(LifecycleRuleFilter::builder().prefix(prefix).build());
        let after = AbortIncompleteMultipartUpload::builder().days_after_initiation(3).build();
        let rule = rule.abort_incomplete_multipart_upload(after).build().unwrap();
        let whole = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
        let client = self.store.client().await;
        let request = client.put_bucket_lifecycle_configuration().bucket(self.store.bucket());
        request.lifecycle_configuration(whole).send().await.unwrap();
    }

    /// The keys in the bucket.
    pub async fn keys(&self) -> Vec<String> {
        let found =
            self.store.client().await.list_objects_v2().bucket(self.store.bucket()).send().await.unwrap();
        found.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }
}

fn store(settings: Value) -> Arc<S3> {
    let vault: Arc<dyn Vault> = Arc::new(NoVault);
    let one = Map::from_iter([("bucket".to_owned(), settings)]);
    let resources = Resources::open(&one, &Map::new(), &Redactor::default(), &vault).unwrap();
    resources.connection::<S3>("bucket").unwrap()
}
