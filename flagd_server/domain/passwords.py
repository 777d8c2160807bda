"""Which passwords people may have (OWASP ASVS 5.0, 6.2): long, and none that everybody tries first.

No rules of composition. Of twelve characters or more, the common passwords are nearly all made of a
few words, runs and repetitions, so those are told by what is left without them, which a list of
whole passwords would never be long enough for.
"""

import re

from flagd_server.domain.faults import Fault

MIN_CHARS = 12
MAX_CHARS = 256
"""More than the 128 that must be allowed; a bound on what is hashed."""

ONE_TIME_BYTES = 18
"""Of randomness in a password that the server makes: 24 characters of base64url."""

_MIN_OWN_CHARS = 5
"""What is left has to have so many characters, or the whole is taken for a common password."""

# In lower case; what is written with look-alikes is read as letters too.
_COMMON = """
abcdefghijklmnopqrstuvwxyz qwertyuiop asdfghjkl zxcvbnm qazwsxedcrfvtgbyhnujmikolp qwerty azerty
qwertz qwert asdfgh asdf zxcvbn zxcv qazwsx qaz wsx edc rfv tgb abcdef abcd abc passwords password
passwort passphrase passw0rd passwd pass word secret geheim hidden administrator admin root
superuser user guest login logon letmein letme welcome changeme change default temporary temp test
testing example sample demo hello world iloveyou ilove love you forever always baby angel princess
prince sweetheart honey sunshine summer winter autumn spring monday friday january september
october november december football baseball basketball soccer hockey monkey dragon tiger lion
eagle shadow master killer michael jordan jennifer jessica ashley daniel matthew andrew joshua
robert thomas nicole charlie buster ginger pepper cookie chocolate cheese banana orange apple
flower rainbow starwars superman batman spiderman pokemon naruto matrix trustno minecraft fortnite
liverpool chelsea arsenal manchester united barcelona realmadrid yankees cowboys steelers mercedes
ferrari porsche harley corvette mustang google facebook samsung microsoft windows computer
internet server access freedom whatever nothing everything unknown private
correcthorsebatterystaple staple battery correct horse 1q2w3e4r5t6y7u8i9o0p 1q2w3e4r5t6y7u8i9o
1q2w3e4r5t6y7u8i 1q2w3e4r5t6y7u 1q2w3e4r5t6y 1q2w3e4r5t 1q2w3e4r 1q2w3e 1q2w q1w2e3r4t5y6u7i8o9p0
q1w2e3r4t5y6 q1w2e3r4t5 q1w2e3r4 q1w2e3 q1w2 zaq1xsw2cde3 zaq1xsw2 zaq1 1qaz2wsx3edc4rfv 1qaz2wsx
1qazxsw23edc qazxswedcvfr qazxswedc qweasdzxc zxcasdqwe qweasd asdzxc qwe asd zxc poiuytrewq trewq
motherfucker leavemealone heterosexual international professional cosmopolitan telechargement
supernatural transformers stratocaster counterstrike playstation finalfantasy residentevil
needforspeed peanutbutter onedirection justinbieber michaeljackson avrillavigne hannahmontana
edwardcullen jamesbond cookiemonster sonyericsson jesuslovesme ingodwetrust christopher
sonnenschein ichliebedich jackson family monster sebastian alexander flagdrelease flagrelease
flagd flag flags feature toggle release my the and is for new
"""
_RUNS = ("0123456789", "9876543210", "1234567890", "0987654321", "147258369", "741852963")
_YEAR = r"(?:19|20)\d\d"


def _runs() -> set[str]:
    """Return every stretch of three or more keys of the rows above."""
    return {
        run[start:end]
        for run in _RUNS
        for start in range(8)
        for end in range(start + 3, len(run) + 1)
    }


def _any_of(texts: set[str]) -> str:
    return "|".join(sorted(map(re.escape, texts), key=len, reverse=True))


_DIGITS = re.compile(f"{_YEAR}|{_any_of(_runs())}")
_PARTS = re.compile(f"{_YEAR}|{_any_of({*_COMMON.split(), *_runs()})}")
_LOOKALIKE = str.maketrans("013457@$!", "oieastasi")
_REPEATED = re.compile(r"(.{1,6}?)\1+")


def password_faults(field: str, password: str, name: str) -> list[Fault]:
    """Return why a person may not have the password; `name` is how they log in."""
    if len(password) < MIN_CHARS:
        return [Fault(field, f"expected {MIN_CHARS} characters or more")]
    if len(password) > MAX_CHARS:
        return [Fault(field, f"expected {MAX_CHARS} characters or fewer")]
    if is_common(password, name):
        return [
            Fault(
                field,
                "is made of what is tried first (common words, runs of keys, your name);"
                " expected something that is yours alone, such as four words by chance",
            )
        ]
    return []


def is_common(password: str, name: str) -> bool:
    """Tell whether little is left of a password without its common parts and the name."""
    plain = password.lower()
    # Years and runs first, which read as look-alikes would be none.
    forms = (plain, _DIGITS.sub("", plain).translate(_LOOKALIKE))
    return any(_own_chars(form, name) < _MIN_OWN_CHARS for form in forms)


def _own_chars(text: str, name: str) -> int:
    for part in re.split(r"[^a-z]+", name.lower()):
        if len(part) > 2:
            text = text.replace(part, "")
    # Once more, for what only stands together when something between is gone.
    for _ in range(2):
        text = _REPEATED.sub(r"\1", _PARTS.sub("", text))
    return len(text)
