//! What a pod does with its claims: a container has one limits file, so of two claims the second one's limits would hold alone.

use serde_json::Value;
use std::collections::BTreeSet;

/// The pods for which a claim is reserved.
pub fn reserved_for(claim: &Value) -> Vec<&str> {
    let consumers = claim["status"]["reservedFor"].as_array().into_iter().flatten();
    consumers.filter(|of| of["resource"] == "pods").filter_map(|of| of["name"].as_str()).collect()
}

/// The claim that stands behind a name in a pod: one that exists, or one that was made from a template.
fn behind<'p>(pod: &'p Value, name: &Value) -> Option<&'p str> {
    let find = |list: &'p Value| list.as_array().into_iter().flatten().find(|of| of["name"] == *name);
    let made = find(&pod["status"]["resourceClaimStatuses"]);
    let named = find(&pod["spec"]["resourceClaims"]);
    [made, named].into_iter().flatten().find_map(|of| of["resourceClaimName"].as_str())
}

/// Why a pod cannot have this claim beside the others of its namespace that are prepared.
pub fn contradiction(pod: &Value, claim: &str, others: &[&str]) -> Option<String> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    for container in lists.into_iter().flatten().flatten() {
        let named = container["resources"]["claims"].as_array().into_iter().flatten();
        let used: BTreeSet<&str> = named.filter_map(|of| behind(pod, &of["name"])).collect();
        if used.contains(claim)
            && let Some(other) = used.iter().find(|name| **name != claim && others.contains(name))
        {
            return Some(format!(
                "container {} of pod {} uses it and claim {other}, and a container has one quota. Write both requests into one claim",
                container["name"].as_str().unwrap_or_default(),
                pod["metadata"]["name"].as_str().unwrap_or_default()
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_claims_are_told_if_one_container_uses_both() {
        let pod = |second: &str| {
            json!({
                "metadata": { "name": "web" },
                "spec": {
                    "containers": [
                        { "name": "main", "resources": { "claims": [{ "name": "a" }] } },
                        { "name": "side", "resources": { "claims": [{ "name": second }, { "name": "b" }] } },
                        { "name": "none" },
                    ],
                    "resourceClaims": [
                        { "name": "a", "resourceClaimTemplateName": "template" },
                        { "name": "b", "resourceClaimName": "shared" },
                    ],
                },
                "status": { "resourceClaimStatuses": [{ "name": "a", "resourceClaimName": "web-a-x7" }] },
            })
        };
        assert_eq!(contradiction(&pod("b"), "shared", &["web-a-x7"]), None);
        assert_eq!(contradiction(&pod("a"), "shared", &["another"]), None);
        let told = contradiction(&pod("a"), "shared", &["web-a-x7"]).expect("told");
        assert!(told.contains("container side of pod web") && told.contains("claim web-a-x7"), "{told}");
        assert_eq!(contradiction(&json!({}), "shared", &["web-a-x7"]), None);
    }
}
