//! Names as one argument of a command line, separated by commas: `good, scratched,"bent, left"`.
//!
//! Blanks around a name do not count. A name in double quotes may hold commas; a quote within it is
//! written twice (RFC 4180, section 2).

use std::str::FromStr;

/// A list of names, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut rest = text.trim_start();
        loop {
            let (name, after) = match rest.strip_prefix('"') {
                Some(quoted) => until_quote(quoted)?,
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    (rest[..end].trim_end().to_owned(), &rest[end..])
                }
            };
            if name.is_empty() {
                return Err(format!("name {} is empty", names.len() + 1));
            }
            names.push(name);
            let after = after.trim_start();
            if after.is_empty() {
                return Ok(Self(names));
            }
            rest = after
                .strip_prefix(',')
                .ok_or_else(|| format!("a comma is missing before {after:?}"))?
                .trim_start();
        }
    }
}

/// A quoted name whose first quote is taken, and what follows it.
fn until_quote(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or_else(|| format!("the quote before {text:?} has no end"))?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Ok((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        text.parse().map(|Names(names)| names)
    }

    #[test]
    fn blanks_around_names_do_not_count_and_quotes_keep_commas() {
        assert_eq!(names("good,bad").unwrap(), ["good", "bad"]);
        assert_eq!(names(" good , not so good ").unwrap(), ["good", "not so good"]);
        assert_eq!(names("\"bent, left\", ok").unwrap(), ["bent, left", "ok"]);
        assert_eq!(names("\"a \"\"b\"\"\"").unwrap(), ["a \"b\""]);
        assert_eq!(names("3\" pipe,x").unwrap(), ["3\" pipe", "x"]);
    }

    #[test]
    fn what_cannot_be_a_list_says_where() {
        assert_eq!(names("good,,bad").unwrap_err(), "name 2 is empty");
        assert_eq!(names("good,").unwrap_err(), "name 2 is empty");
        assert_eq!(names("").unwrap_err(), "name 1 is empty");
        assert!(names("\"good").unwrap_err().contains("no end"));
        assert!(names("\"good\" bad").unwrap_err().contains("comma is missing"));
    }
}
