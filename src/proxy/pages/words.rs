//! What the loading page says, in the languages it speaks.

use std::time::Duration;

use crate::domain::accept;
use crate::domain::wake::Failure;

/// A language that the page speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// The one that the reader understands best, by `Accept-Language`.
    pub fn of(accept_language: Option<&[u8]>) -> Language {
        match accept::language(accept_language.unwrap_or_default(), &["en", "zh"]) {
            Some("zh") => Language::Chinese,
            _ => Language::English,
        }
    }

    /// The tag for `lang` and `Content-Language`.
    pub fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh-Hans",
        }
    }

    /// "Waking up Shop".
    pub(super) fn waking(self, name: &str) -> String {
        match self {
            Language::English => format!("Waking up {name}"),
            Language::Chinese => format!("正在唤醒 {name}"),
        }
    }

    /// Why there is something to wait for, and how it ends.
    pub(super) fn why_waiting(self) -> &'static str {
        match self {
            Language::English => {
                "It went to sleep because nobody was using it. It is starting now and will open here by itself."
            }
            Language::Chinese => "由于一段时间无人访问，它进入了休眠。现在正在启动，就绪后会在这里自动打开。",
        }
    }

    /// Nobody can be asked to start it.
    pub(super) fn unreachable(self) -> &'static str {
        match self {
            Language::English => {
                "The platform that starts it cannot be reached at the moment. \
                 We keep trying, and it will open here by itself as soon as that works."
            }
            Language::Chinese => "暂时无法连接到负责启动它的平台。我们会继续尝试，恢复后它会在这里自动打开。",
        }
    }

    /// Where the start is.
    pub(super) fn now(self, now: Now) -> String {
        match (self, now) {
            (Language::English, Now::Starting) => "Starting".into(),
            (Language::English, Now::AlmostThere) => "Almost there".into(),
            (Language::English, Now::Late) => "This takes a little longer than usual".into(),
            (Language::English, Now::Again(attempt)) => format!("Trying again (attempt {attempt})"),
            (Language::English, Now::Waiting) => "Waiting for the platform".into(),
            (Language::Chinese, Now::Starting) => "正在启动".into(),
            (Language::Chinese, Now::AlmostThere) => "即将就绪".into(),
            (Language::Chinese, Now::Late) => "比平时稍慢，请再等一会儿".into(),
            (Language::Chinese, Now::Again(attempt)) => format!("正在重试（第 {attempt} 次）"),
            (Language::Chinese, Now::Waiting) => "正在等待平台恢复".into(),
        }
    }

    /// "usually takes about 8 s".
    pub(super) fn usually(self, expected: Duration) -> String {
        let about = self.about(expected);
        match self {
            Language::English => format!("usually takes about {about}"),
            Language::Chinese => format!("通常约需 {about}"),
        }
    }

    /// "Shop could not be started".
    pub(super) fn failed(self, name: &str) -> String {
        match self {
            Language::English => format!("{name} could not be started"),
            Language::Chinese => format!("{name} 未能启动"),
        }
    }

    /// Why.
    pub(super) fn why_failed(self, failure: Option<&Failure>) -> String {
        match (self, failure) {
            (Language::English, Some(Failure::Told(message))) if !message.is_empty() => {
                format!("The platform says: {message}")
            }
            (Language::English, Some(Failure::TooLate)) => "It did not answer in time.".into(),
            (Language::English, _) => "The platform gave no reason.".into(),
            (Language::Chinese, Some(Failure::Told(message))) if !message.is_empty() => format!("平台反馈：{message}"),
            (Language::Chinese, Some(Failure::TooLate)) => "它未能在规定时间内响应。".into(),
            (Language::Chinese, _) => "平台没有说明原因。".into(),
        }
    }

    /// When another try is worth while.
    pub(super) fn retry(self, wait: Duration) -> String {
        let about = self.about(wait);
        match self {
            Language::English if wait.is_zero() => "You can try again now.".into(),
            Language::English => format!("You can try again in {about}."),
            Language::Chinese if wait.is_zero() => "现在可以重试。".into(),
            Language::Chinese => format!("{about}后可以重试。"),
        }
    }

    /// The button.
    pub(super) fn again(self) -> &'static str {
        match self {
            Language::English => "Try again",
            Language::Chinese => "重试",
        }
    }

    /// The page's own connection is gone.
    pub(super) fn lost(self) -> &'static str {
        match self {
            Language::English => "The connection was lost. Trying again",
            Language::Chinese => "连接已断开，正在重试",
        }
    }

    /// What the progress bar measures, for those who do not see it.
    pub(super) fn bar(self) -> &'static str {
        match self {
            Language::English => "Progress of the start",
            Language::Chinese => "启动进度",
        }
    }

    /// "8 s", "3 min"; never "0 s".
    fn about(self, duration: Duration) -> String {
        let seconds = duration.as_secs_f64().ceil().max(1.0);
        let (minutes, seconds) = ((seconds / 60.0).round(), seconds);
        match self {
            Language::English if seconds < 90.0 => format!("{seconds:.0} s"),
            Language::English => format!("{minutes:.0} min"),
            Language::Chinese if seconds < 90.0 => format!("{seconds:.0} 秒"),
            Language::Chinese => format!("{minutes:.0} 分钟"),
        }
    }
}

/// Where a start is, where the platform does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    Starting,
    AlmostThere,
    Late,
    /// This is the attempt with this number.
    Again(u32),
    /// Until the platform can be reached.
    Waiting,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_is_spoken_to_in_a_language_they_know() {
        assert_eq!(Language::of(Some(b"zh-CN,zh;q=0.9,en;q=0.8")), Language::Chinese);
        assert_eq!(Language::of(Some(b"fr,de;q=0.5")), Language::English);
        assert_eq!(Language::of(None), Language::English);
    }

    #[test]
    fn durations_are_rounded_as_people_do() {
        let check = |seconds: f64, expected: &str| {
            assert_eq!(Language::English.about(Duration::from_secs_f64(seconds)), expected);
        };
        check(0.0, "1 s");
        check(7.2, "8 s");
        check(89.0, "89 s");
        check(91.0, "2 min");
        check(600.0, "10 min");
        assert_eq!(Language::Chinese.about(Duration::from_secs(120)), "2 分钟");
    }
}
