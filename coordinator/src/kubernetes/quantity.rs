//! Quantities such as `500m`, `2`, `128Mi` (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use serde_json::Value;

/// Thousandths of the unit of a quantity: of a byte, of a core. `None`: it is none, or larger than can be told.
pub fn thousandths(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return number.checked_mul(1000);
    }
    let text = value.as_str()?;
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
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
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            1000_i64.checked_mul(10_i64.checked_pow(power.parse().ok()?)?)?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.get(..fraction.len().min(9))?;
    let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
    let part: i128 = match fraction {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let whole = match whole {
        "" => 0,
        digits => digits.parse::<i64>().ok()?.checked_mul(factor)?,
    };
    let part = i64::try_from(part * i128::from(factor) / i128::from(scale)).ok()?;
    whole.checked_add(part)
}

/// Whole bytes; `None`: it is no quantity.
pub fn bytes(value: &Value) -> Option<u64> {
    u64::try_from(thousandths(value)? / 1000).ok()
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
            (json!("1.5Gi"), Some(1536 * (1000 << 20))),
            (json!("128Mi"), Some(128 * (1000 << 20))),
            (json!("1e3"), Some(1_000_000)),
            (json!("much"), None),
            (json!("12Xi"), None),
            (json!(""), Some(0)),
            (json!("99999999Ti"), None),
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
    }
}
