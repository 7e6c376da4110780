//! Quantities such as `500m`, `2`, `128Mi` (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>). The one
//! parser: what the scheduler's arithmetic rests on and what templates are changed by is read alike.

use serde_json::Value;

/// A quantity in thousandths of its unit, rounded up as Kubernetes rounds: of a core, of a byte. What is larger than can be told is the
/// largest that can (k8s.io/apimachinery pkg/api/resource caps too). `None`: it is no quantity.
pub fn thousandths(value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let text = text.trim();
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.contains('.') {
        return None;
    }
    let amount = scaled(&digits, fraction.len(), scale(suffix)?);
    Some(if is_negative { -amount } else { amount })
}

/// What a suffix multiplies by: two or ten to a power, beside a thousand for the thousandths.
#[derive(Clone, Copy)]
enum Scale {
    Two(u32),
    Ten(i32),
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        exponent => Scale::Ten(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// Digits of which the last `places` are a fraction, in thousandths.
fn scaled(digits: &str, places: usize, scale: Scale) -> i64 {
    if digits.bytes().all(|digit| digit == b'0') {
        return 0;
    }
    let amount = || {
        let (by, power) = match scale {
            Scale::Two(power) => (2_i128.checked_pow(power)?, 3),
            Scale::Ten(power) => (1, power.checked_add(3)?),
        };
        let amount = digits.parse::<i128>().ok()?.checked_mul(by)?;
        let places = i32::try_from(places).ok()?;
        let power = power.checked_sub(places)?;
        let ten = 10_i128.checked_pow(power.unsigned_abs());
        if power >= 0 {
            amount.checked_mul(ten?)
        } else {
            // Smaller than any part of it: the least there is.
            Some(ten.map_or(1, |ten| amount / ten + i128::from(amount % ten != 0)))
        }
    };
    amount()
        .and_then(|amount| i64::try_from(amount).ok())
        .unwrap_or(i64::MAX)
}

/// Whole units of thousandths, rounded up.
pub(super) const fn up(thousandths: i64) -> i64 {
    thousandths.saturating_add(999) / 1000
}

/// Whole bytes; `None`: it is no quantity, or less than none.
pub fn bytes(value: &Value) -> Option<u64> {
    let amount = thousandths(value).filter(|amount| *amount >= 0)?;
    u64::try_from(up(amount)).ok()
}

/// As it stands in a manifest: in `Mi` where that is exact.
pub fn text(bytes: u64) -> String {
    const MI: u64 = 1 << 20;
    if bytes > 0 && bytes.is_multiple_of(MI) {
        format!("{}Mi", bytes / MI)
    } else {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        let table = [
            (json!("500m"), Some(500)),
            (json!("2"), Some(2000)),
            (json!(3), Some(3000)),
            (json!("0.5"), Some(500)),
            (json!(".5"), Some(500)),
            (json!("5."), Some(5000)),
            (json!("1.5Gi"), Some(1536 * (1000 << 20))),
            (json!("128Mi"), Some(128 * (1000 << 20))),
            (json!("1k"), Some(1_000_000)),
            (json!("1e3"), Some(1_000_000)),
            (json!("12e-3"), Some(12)),
            (json!("1n"), Some(1)),
            (json!("1e-99"), Some(1)),
            (json!("0e-99"), Some(0)),
            (json!("2500000n"), Some(3)),
            (json!("-500m"), Some(-500)),
            (json!("+1"), Some(1000)),
            (json!("9Ei"), Some(i64::MAX)),
            (json!("99999999Ti"), Some(i64::MAX)),
            (json!("1e400"), Some(i64::MAX)),
            (json!("9".repeat(60)), Some(i64::MAX)),
            (json!(""), None),
            (json!("."), None),
            (json!("1.2.3"), None),
            (json!("--1"), None),
            (json!("much"), None),
            (json!("12Xi"), None),
            (json!(null), None),
        ];
        for (value, expected) in table {
            assert_eq!(thousandths(&value), expected, "{value}");
        }
    }

    #[test]
    fn bytes_are_written_as_they_are_read() {
        for (number, written) in [(512 << 20, "512Mi"), (1000, "1000"), (0, "0")] {
            assert_eq!(text(number), written);
            assert_eq!(bytes(&json!(written)), Some(number));
        }
        assert_eq!(bytes(&json!("1500m")), Some(2));
        assert_eq!(bytes(&json!("-1")), None);
    }
}
