//! Pages and small bodies that the router writes itself. Pure: facts in, text out; who sends them is not decided here.

pub mod error;
pub mod loading;
pub mod template;
pub mod words;

pub use error::{ErrorFacts, ErrorPage, HTML, TEXT};
pub use loading::{LoadingPage, PageFacts};
pub use template::BadTemplate;
pub use words::Language;

/// The pages of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// What visitors of sleeping apps see.
    pub loading: LoadingPage,
    /// What errors look like.
    pub error: ErrorPage,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{error, loading, template};

    const INTRODUCTION: &str = include_str!("introduction.md");

    /// The page of the documentation: written by hand above, generated from `VARIABLES` below.
    fn documentation() -> String {
        let [loading, error] = [loading::VARIABLES, error::VARIABLES].map(template::as_markdown);
        format!(
            "{INTRODUCTION}\n## Variables of the loading page\n\n{loading}\n## Variables of the error page\n\n{error}"
        )
    }

    #[test]
    fn the_documentation_names_every_variable() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PAGES.md");
        let page = documentation();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, &page).expect("the page can be written");
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == page, "docs/PAGES.md is stale: UPDATE_DOCS=1 cargo test --lib writes it");
    }

    #[test]
    fn the_example_in_the_documentation_is_a_good_template() {
        let (_, example) = INTRODUCTION.split_once("```html\n").expect("an example");
        let (example, _) = example.split_once("```").expect("its end");
        assert!(loading::LoadingPage::from_template(example.as_bytes()).is_ok());
    }
}
