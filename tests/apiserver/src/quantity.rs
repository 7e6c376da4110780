//! Quantities such as `500m`, `2`, `128Mi`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use serde_json::Value;

/// A quantity in thousandths of its unit; nothing for what is not a quantity.
pub fn millis(value: &Value) -> i64 {
    if let Some(number) = value.as_i64() {
        return number.saturating_mul(1000);
    }
    let text = value.as_str().unwrap_or_default();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: i64 = match suffix {
        "" => 1000,
        "m" => 1,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return 0,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let part: i64 = fraction.chars().take(3).collect::<String>().parse().unwrap_or(0);
    let scale = 10_i64.pow(u32::try_from(fraction.len().min(3)).unwrap_or(3));
    whole.parse::<i64>().unwrap_or(0).saturating_mul(factor) + part * (factor / scale)
}

/// Whole units: bytes of memory, numbers of pods.
pub fn units(value: &Value) -> i64 {
    millis(value) / 1000
}

/// A count or a percentage of `total` (`maxUnavailable`, `minAvailable`), rounded up or down.
pub fn of_total(value: &Value, total: i64, round_up: bool) -> i64 {
    if let Some(number) = value.as_i64() {
        return number;
    }
    let percent: i64 = value
        .as_str()
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if round_up {
        (total * percent + 99) / 100
    } else {
        total * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        for (text, expected) in [
            (json!("500m"), 500),
            (json!("2"), 2000),
            (json!(3), 3000),
            (json!("0.5"), 500),
            (json!("1.5Gi"), 1536 * 1024 * 1024 * 1000),
            (json!("128Mi"), 128 * 1024 * 1024 * 1000),
            (json!("nonsense"), 0),
        ] {
            assert_eq!(millis(&text), expected, "{text}");
        }
        assert_eq!(of_total(&json!("25%"), 3, true), 1);
        assert_eq!(of_total(&json!("25%"), 3, false), 0);
    }
}
