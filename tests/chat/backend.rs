//! Where the API keeps attachments: read, set, restarted and looked at again, beside a sandbox whose API can be restarted.

use std::path::Path;
use std::process::Command;

use runbook_sandbox::sandbox_binary;

/// Runs a script with `sh` beside a sandbox of these flags; its exit code, and all that was said.
pub fn beside(flags: &[&str], script: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let runbook = Path::new(env!("CARGO_BIN_EXE_runbook")).parent().unwrap();
    let path = format!("{}:{}", runbook.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(sandbox_binary().unwrap());
    command.arg("chat").args(flags).args(["--", "sh", "-c", script]).env("PATH", path);
    command.env("RUNBOOK_STATE", format!("sqlite:{}", folder.path().join("state.db").display()));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    (output.status.code(), said)
}

/// What every script here begins with.
const BEGIN: &str = r#"
    set -e
    # CODE ARGUMENTS...: starts the procedure, which has to end so.
    begin() {
        wanted=$1; shift; code=0
        runbook exec chat-attachment-lifecycle --inputs "$RUNBOOK_INPUTS" "$@" >"$said" 2>&1 </dev/null || code=$?
        cat "$said"
        test $code = $wanted || { echo "exit code $code, and not $wanted"; exit 1; }
        run=$(grep -o 'runbook \(answer\|resume\) [^ ]*' "$said" | head -n 1 | cut -d' ' -f3)
    }
    # CODE ANSWER: answers what the run asks, and has to end so.
    answer() {
        code=0
        runbook answer "$run" "$2" >"$said" 2>&1 || code=$?
        cat "$said"
        test $code = $1 || { echo "exit code $code, and not $1"; exit 1; }
    }
    told() { grep -q -- "$1" "$said" || { echo "NOT TOLD: $1"; exit 1; }; }
    cancel() { runbook cancel "$run" >/dev/null 2>&1 || test $? = 6; }
    # Whether the API was started again since the last call.
    restarted() { last=${since-}; since=$(sandbox status --since chat-api); test "$last" != "$since"; }
    not() { if "$@"; then echo "SHOULD NOT BE: $*"; exit 1; fi; }
    said=$SANDBOX_DIR/said
    evidence=$SANDBOX_DIR/evidence
    restarted
"#;

fn holds(flags: &[&str], script: &str) -> String {
    let (code, said) = beside(flags, &format!("{BEGIN}\n{script}"));
    assert_eq!(code, Some(0), "{said}");
    said
}

#[test]
fn an_api_that_fell_back_is_mended_when_a_person_says_so() {
    holds(
        &["--fallen-back"],
        r#"
        begin 5
        answer 5 'EXPIRE ATTACHMENTS'
        told 'RESTART THE API'
        runbook show "$run" --json >"$said"
        told 'CHAT_ATTACHMENT_STORAGE_BACKEND= CHAT_ATTACHMENT_S3_PREFIX= S3_ENDPOINT='
        not grep -q CHAT_ATTACHMENT_STORAGE_BACKEND "$CHAT_ENV_FILE"
        not restarted
        answer 0 'RESTART THE API'
        grep -q "CHAT_ATTACHMENT_STORAGE_BACKEND='s3'" "$CHAT_ENV_FILE"
        restarted
        grep -q '"verdict": "PASS"' "$evidence"/*.json
        grep -q 'Backend of the API.*CHAT_ATTACHMENT_STORAGE_BACKEND= before, CHAT_ATTACHMENT_STORAGE_BACKEND=s3 after' "$evidence"/*.md
        # Again there is nothing to do, and nobody is asked.
        begin 0
        not restarted
        # It runs with S3, and would not the next time: that is told too, and set; a restart is not needed.
        sandbox set chat-api CHAT_ATTACHMENT_STORAGE_BACKEND local
        begin 5
        answer 0 'RESTART THE API'
        not restarted
        grep -q "CHAT_ATTACHMENT_STORAGE_BACKEND='s3'" "$CHAT_ENV_FILE"
        "#,
    );
}

#[test]
fn nothing_is_changed_without_a_person_or_where_the_runbook_is_not_to_change_it() {
    holds(
        &["--fallen-back"],
        r#"
        begin 5
        answer 5 'EXPIRE ATTACHMENTS'
        answer 2 'no'
        cancel
        not restarted
        # The backend is `auto`, and its log says what became of it.
        begin 5 -i 'set_backend_command=[]'
        answer 4 'EXPIRE ATTACHMENTS'
        told 'the log shows what must not be there'
        told 'falling back to local chat attachment storage (set CHAT_ATTACHMENT_STORAGE_BACKEND=s3 to fail hard)'
        # Started anew by hand, now that its bucket is there, `auto` is S3, and the same run goes on.
        sandbox restart chat-api
        runbook resume "$run"
        # Without its log nobody knows what `auto` is.
        begin 4 -i 'set_backend_command=[]' -i 'log_command=[]'
        told 'the API runs with CHAT_ATTACHMENT_STORAGE_BACKEND=: set it to s3 in its environment and restart it'
        cancel
        sandbox set chat-api CHAT_ATTACHMENT_STORAGE_BACKEND local
        sandbox restart chat-api
        begin 4 -i 'restart_command=[]'
        told 'the API runs with CHAT_ATTACHMENT_STORAGE_BACKEND=local: set it to s3'
        cancel
        "#,
    );
}

#[test]
fn an_api_of_another_place_is_found_out_before_anybody_is_asked() {
    holds(
        &[],
        r#"
        # It needs no bucket to start.
        sandbox set chat-api CHAT_ATTACHMENT_STORAGE_BACKEND local
        sandbox restart chat-api
        for wrong in APP_ENV=Development S3_BUCKET=gotong-royong-evidence-dev CHAT_ATTACHMENT_S3_PREFIX=chat; do
            name=${wrong%%=*}
            kept=$(grep "^$name=" "$CHAT_ENV_FILE" | cut -d= -f2 || true)
            sandbox set chat-api "$name" "${wrong#*=}"
            begin 4
            told "the API is started the next time with $wrong, which it does not run with now"
            cancel
            sandbox restart chat-api
            begin 4
            told "the API runs with $wrong, and"
            cancel
            sandbox set chat-api "$name" "$kept"
            sandbox restart chat-api
        done
        # The API takes it in lower case, and without slashes.
        sandbox set chat-api APP_ENV ' Sandbox '
        sandbox set chat-api CHAT_ATTACHMENT_S3_PREFIX /chat-attachments
        sandbox set chat-api CHAT_ATTACHMENT_STORAGE_BACKEND s3
        sandbox restart chat-api
        begin 5
        answer 0 'EXPIRE ATTACHMENTS'
        "#,
    );
}

#[test]
fn a_restart_that_goes_wrong_stops_the_run_with_what_the_log_says() {
    holds(
        &["--fallen-back"],
        r#"
        # The store takes no key of the API any more.
        sandbox set chat-api S3_SECRET_KEY wrong
        begin 5 -i ready_timeout=2s
        answer 5 'EXPIRE ATTACHMENTS'
        answer 4 'RESTART THE API'
        told 'the log shows what must not be there'
        told 'failed to initialize S3 chat attachment storage'
        grep -q '"verdict": "FAIL"' "$evidence"/*.json
        # Mended by hand, the same run goes on.
        sandbox set chat-api S3_SECRET_KEY "$S3_SECRET_KEY"
        runbook resume "$run"
        grep -q '"verdict": "PASS"' "$evidence"/*.json
        "#,
    );
}

#[test]
fn what_is_said_to_restart_it_and_does_not_is_found_out() {
    holds(
        &["--fallen-back"],
        r#"
        begin 5 -i 'restart_command=["true"]'
        answer 5 'EXPIRE ATTACHMENTS'
        answer 4 'RESTART THE API'
        told 'falling back to local'
        cancel
        begin 5 -i 'restart_command=["true"]' -i 'log_command=[]'
        answer 5 'EXPIRE ATTACHMENTS'
        answer 4 'RESTART THE API'
        told 'the API was restarted and runs with CHAT_ATTACHMENT_STORAGE_BACKEND=: look at how its environment is handed to it'
        "#,
    );
}
