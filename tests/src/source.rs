//! Rust sources as tokens: just enough for the rules about layers and manners, without a compiler.
//!
//! Comments, strings and test modules are left out, so that prose may name what code may not use.

/// One token: an identifier (raw ones without `r#`) or one character of punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub text: String,
}

/// The tokens of a source text. Literals give no token.
pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let from = i;
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i = block_comment_end(&chars, i);
        } else if c == '"' {
            i = string_end(&chars, i);
        } else if c == '\'' {
            i = quote_end(&chars, i);
        } else if is_word(c) {
            while is_word(at(i)) {
                i += 1;
            }
            let word: String = chars[from..i].iter().collect();
            let hashes = (i..).take_while(|&j| at(j) == '#').count();
            match word.as_str() {
                "r" | "br" | "cr" if at(i + hashes) == '"' => i = raw_string_end(&chars, i, hashes),
                "b" | "c" if at(i) == '"' => i = string_end(&chars, i),
                "b" if at(i) == '\'' => i = quote_end(&chars, i),
                "r" if hashes == 1 && is_word(at(i + 1)) => i += 1, // r#type: the word itself follows
                _ if word.starts_with(|c: char| c.is_ascii_digit()) => {}
                _ => out.push(Token { line, text: word }),
            }
        } else {
            i += 1;
            if !c.is_whitespace() {
                out.push(Token { line, text: c.to_string() });
            }
        }
        line += chars[from..i].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// The same without `#[cfg(test)] mod … { … }`: tests may do what the program may not.
pub fn program_tokens(source: &str) -> Vec<Token> {
    let all = tokens(source);
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut out, mut i) = (Vec::new(), 0);
    while i < all.len() {
        let is_marked = marker.iter().enumerate().all(|(k, m)| all.get(i + k).is_some_and(|t| t.text == *m));
        if is_marked {
            i = item_end(&all, i + marker.len());
        } else {
            out.push(all[i].clone());
            i += 1;
        }
    }
    out
}

/// The index after the item that starts at `i`: its closing brace or semicolon.
fn item_end(all: &[Token], mut i: usize) -> usize {
    let mut depth = 0usize;
    while let Some(token) = all.get(i) {
        i += 1;
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    break;
                }
            }
            ";" if depth == 0 => break,
            _ => {}
        }
    }
    i
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment_end(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => {
                (depth, i) = (depth - 1, i + 2);
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    i
}

fn string_end(chars: &[char], open: usize) -> usize {
    let mut i = open + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], after_r: usize, hashes: usize) -> usize {
    let mut i = after_r + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// A character literal is skipped whole; of a lifetime only the quote is.
fn quote_end(chars: &[char], open: usize) -> usize {
    match (chars.get(open + 1), chars.get(open + 2)) {
        (Some('\\'), _) => {
            let mut i = open + 3;
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            (i + 1).min(chars.len())
        }
        (Some(_), Some('\'')) => open + 3,
        _ => open + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        program_tokens(source).into_iter().map(|t| t.text).filter(|t| t.chars().all(is_word)).collect()
    }

    #[test]
    fn only_code_gives_tokens() {
        let source = r###"
            // std::fs in a comment
            /* tokio /* nested */ still a comment */
            let a = "Instant \" HashMap"; let b = r#"thread "#; let c = b"rand"; let d = '"'; let e = b'\'';
            fn f<'a>(x: &'a str) -> r#type { 'z'; '\u{1F600}'; 0x1f_u8 }
        "###;
        let got = words(source);
        for absent in ["std", "fs", "tokio", "Instant", "HashMap", "thread", "rand", "still"] {
            assert!(!got.contains(&absent.to_owned()), "{absent} in {got:?}");
        }
        for present in ["let", "e", "fn", "a", "str", "type"] {
            assert!(got.contains(&present.to_owned()), "no {present} in {got:?}");
        }
    }

    #[test]
    fn test_modules_are_left_out_and_lines_are_counted() {
        let source =
            "use a;\n#[cfg(test)]\nmod tests {\n  fn f() { b } }\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod t;\nuse c;";
        assert_eq!(words(source), ["use", "a", "use", "c"]);
        assert_eq!(program_tokens(source).last().map(|t| t.line), Some(8));
    }
}
