//! Who joins a ring gets a badge, signed by the hub.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::{Hub, Refusal, Shared, not_found, one};
use crate::{crypto, time};

/// How long a DID stands in the cache, in seconds.
const CACHED: u64 = 3600;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Join {
    ring_slug: String,
}

/// The DID that a request is signed for.
fn signer(headers: &HeaderMap) -> Option<String> {
    let header = headers.get("signature").or_else(|| headers.get("authorization"))?.to_str().ok()?;
    let (_, rest) = header.split_once("keyId=\"")?;
    let (key, _) = rest.split_once('"')?;
    let did = key.split('#').next().unwrap_or_default();
    did.starts_with("did:").then(|| did.to_owned())
}

/// What of a badge is signed.
fn assertion(id: &str, ring: &str, did: &str) -> String {
    json!({ "id": id, "ring": ring, "recipient": did }).to_string()
}

fn signed(hub: &Hub, assertion: &str) -> Value {
    json!({ "assertion": assertion, "issuer": hub.did, "signature": hub.key.sign(assertion) })
}

/// Signs every badge with the key of this process, as the real hub does when it starts.
pub(super) async fn sign_all(hub: &Hub) -> Result<(), sqlx::Error> {
    let rows =
        sqlx::query(r#"select id, "badgeData" ->> 'assertion' from "Badge""#).fetch_all(&hub.pool).await?;
    for row in rows {
        let data = signed(hub, row.get::<&str, _>(1)).to_string();
        let sql = r#"update "Badge" set "badgeData" = $2::text::jsonb where id = $1"#;
        sqlx::query(sql).bind(row.get::<&str, _>(0)).bind(data).execute(&hub.pool).await?;
    }
    Ok(())
}

pub(super) async fn join(
    State(hub): Shared,
    headers: HeaderMap,
    Json(body): Json<Join>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let did = signer(&headers).ok_or_else(|| {
        Refusal(StatusCode::UNAUTHORIZED, "Unauthorized", "the request is not signed by a DID".to_owned())
    })?;
    cache(&hub, &did).await;
    let found = sqlx::query(
        r#"select r.id, o.id from "Ring" r left join "RingRole" o on o."ringId" = r.id and o.name = 'member' where r.slug = $1"#,
    );
    let found =
        found.bind(&body.ring_slug).fetch_optional(&hub.pool).await?.ok_or_else(|| not_found("Ring"))?;
    let (ring, role) = (found.get::<String, _>(0), found.get::<Option<String>, _>(1));
    let role = role.ok_or_else(|| {
        Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "the ring has no role `member`".to_owned(),
        )
    })?;
    let mut all = hub.pool.begin().await?;
    sqlx::query(r#"insert into "Actor" (id, did) values ($1, $2) on conflict (did) do nothing"#)
        .bind(crypto::uuid())
        .bind(&did)
        .execute(&mut *all)
        .await?;
    let badge = if hub.key.ephemeral && hub.production {
        None
    } else {
        let id = format!("{}/badges/{}", hub.url.trim_end_matches('/'), crypto::hex(&crypto::random::<10>()));
        let data = signed(&hub, &assertion(&id, &ring, &did)).to_string();
        let sql = r#"insert into "Badge" (id, "badgeData") values ($1, $2::text::jsonb)"#;
        sqlx::query(sql).bind(&id).bind(data).execute(&mut *all).await?;
        Some(id)
    };
    let membership = crypto::uuid();
    let sql = r#"insert into "Membership" (id, "ringId", "actorDid", "roleId", "badgeId") values ($1, $2, $3, $4, $5)"#;
    let joined =
        sqlx::query(sql).bind(&membership).bind(&ring).bind(&did).bind(&role).bind(&badge).execute(&mut *all);
    match joined.await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            return Err(Refusal(
                StatusCode::CONFLICT,
                "Conflict",
                "already a member of this ring".to_owned(),
            ));
        }
        other => other?,
    };
    all.commit().await?;
    let badge = badge.map(|id| json!({ "id": id, "url": id }));
    let membership = json!({ "id": membership, "status": "ACTIVE", "role": "member", "joinedAt": time::now(), "requiresApproval": false });
    Ok((StatusCode::CREATED, Json(json!({ "membership": membership, "badge": badge }))))
}

/// Keeps what is known of a DID, as the hub does; it works without.
async fn cache(hub: &Hub, did: &str) {
    let Ok(mut connection) = hub.redis.get_multiplexed_async_connection().await else { return };
    let document = json!({ "id": did }).to_string();
    let mut command = redis::cmd("SET");
    let kept = command
        .arg(format!("did:{did}"))
        .arg(document)
        .arg("EX")
        .arg(CACHED)
        .query_async::<()>(&mut connection);
    // A cache that does not keep it is asked again next time.
    let _ = kept.await;
}

async fn data(hub: &Hub, id: &str) -> Result<Value, Refusal> {
    let sql = r#"select "badgeData"::text from "Badge" where id = $1"#;
    one(hub, sql, id).await?.ok_or_else(|| not_found("Badge"))
}

pub(super) async fn badge(State(hub): Shared, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({ "id": id, "badge": data(&hub, &id).await? })))
}

pub(super) async fn verify(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let data = data(&hub, &id).await?;
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let valid = hub.key.signed(text("assertion"), text("signature"));
    let error = (!valid).then_some("the signature is not of the hub's present key");
    Ok(Json(json!({ "isValid": valid, "error": error, "verifiedAt": time::now(), "issuer": hub.did })))
}
