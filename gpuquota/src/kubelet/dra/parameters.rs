//! The opaque parameters of a claim or a device class, read strictly: a word that is not known is a refusal.

use serde::Deserialize;

const VERSION: &str = "gpuquota.dev/v1";
const KIND: &str = "SliceParameters";

/// How a container may use what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    api_version: String,
    kind: String,
    /// `fixed-share`, `burst-share` or `best-effort`.
    pub policy: Option<String>,
    /// Percent of each card's time that it may have while others leave it; what was booked is guaranteed.
    pub cores_limit: Option<u64>,
}

impl Parameters {
    /// Reads them. The error says what is wrong and what to write.
    pub fn read(value: &serde_json::Value) -> Result<Self, String> {
        let refused = |why: &str| {
            let shown: String = value.to_string().chars().take(200).collect();
            format!(
                "the parameters {shown} of the claim or its device class: {why}. Write apiVersion: {VERSION}, kind: {KIND}, and \
                 of policy and coresLimit what is wanted"
            )
        };
        let read: Self =
            serde_json::from_value(value.clone()).map_err(|error| refused(&error.to_string()))?;
        if read.api_version != VERSION || read.kind != KIND {
            return Err(refused("they are of another kind or version"));
        }
        if let Some(policy) = &read.policy
            && !matches!(policy.as_str(), "fixed-share" | "burst-share" | "best-effort")
        {
            return Err(refused("policy is fixed-share, burst-share or best-effort"));
        }
        if read.cores_limit.is_some_and(|limit| !(1..=100).contains(&limit)) {
            return Err(refused("coresLimit is a percentage from 1 to 100"));
        }
        Ok(read)
    }

    /// What a later one says goes before what an earlier one says.
    pub fn over(self, earlier: Self) -> Self {
        Self {
            policy: self.policy.or(earlier.policy),
            cores_limit: self.cores_limit.or(earlier.cores_limit),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_read_strictly() {
        let of = |more: serde_json::Value| {
            let mut value = json!({ "apiVersion": VERSION, "kind": KIND });
            value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            Parameters::read(&value)
        };
        let read = of(json!({ "policy": "burst-share", "coresLimit": 60 })).expect("read");
        assert_eq!((read.policy.as_deref(), read.cores_limit), (Some("burst-share"), Some(60)));
        for (wrong, words) in [
            (json!({ "polcy": "fixed-share" }), "polcy"),
            (json!({ "policy": "sometimes" }), "burst-share"),
            (json!({ "coresLimit": 0 }), "1 to 100"),
            (json!({ "coresLimit": "60" }), "coresLimit"),
            (json!({ "kind": "GpuConfig" }), "another kind"),
            (json!({ "apiVersion": "gpuquota.dev/v2" }), "another kind or version"),
        ] {
            let told = of(wrong).expect_err("refused");
            assert!(told.contains(words) && told.contains("Write apiVersion"), "{told}");
        }
        assert!(Parameters::read(&json!("text")).is_err());
        assert!(Parameters::read(&json!({})).is_err());
    }
}
