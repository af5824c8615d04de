import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.redact import is_secret_name, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\nq1x==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2", "password=***"),
        ("password = hunter2 for bob", "password = *** for bob"),
        ("connect(user='bob', password='hun ter2', port=5)", "connect(user='bob', password='***', port=5)"),
        ("connect(password=hunter2)", "connect(password=***)"),
        ("f(password=hunter2, port=5)", "f(password=***, port=5)"),
        ("f(password=hunter2,port=5)", "f(password=***,port=5)"),
        ("passwd: hunter2", "passwd: ***"),
        ("PGPASSWORD=hun,ter(2)x psql", "PGPASSWORD=*** psql"),
        ('{"password": "hunter2", "user": "bob"}', '{"password": "***", "user": "bob"}'),
        ("{'api_key': b'ab\\'cd', 'n': 1}", "{'api_key': b'***', 'n': 1}"),
        ('{\\"apiKey\\": \\"abc\\", \\"n\\": 1}', '{\\"apiKey\\": \\"***\\", \\"n\\": 1}'),
        ('{"clientSecret":"a\\"b"}', '{"clientSecret":"***"}'),
        ("os.environ['DB_SECRET'] = 'x y'", "os.environ['DB_SECRET'] = '***'"),
        ("def f(password: str = 'hunter2'):", "def f(password: str = '***'):"),
        ("if token == 'abc':", "if token == '***':"),
        ('secret = """one\ntwo"""; n = 1', 'secret = """***"""; n = 1'),
        ("secret = 'no end\nnext line", "secret = '***\nnext line"),
        ("GET /a?access_token=abc&page=2 HTTP", "GET /a?access_token=***&page=2 HTTP"),
        ("Server=db;Password=abc;Port=1", "Server=db;Password=***;Port=1"),
        ("X-Api-Key: abc\nHost: a", "X-Api-Key: ***\nHost: a"),
        ("aws_secret_access_key = a/b+c", "aws_secret_access_key = ***"),
        ("Authorization: Basic dXNlcjpw x\nHost: a", "Authorization: ***\nHost: a"),
        ("{'Authorization': 'Bearer xyz'}", "{'Authorization': '***'}"),
        ("authorization=Basic dXNlcjpw, n=1", "authorization=***, n=1"),
        ("curl -H 'Authorization: Bearer xyz' http://h", "curl -H 'Authorization: ***' http://h"),
        ("Set-Cookie: sid=a; Path=/\nHost: a", "Set-Cookie: ***\nHost: a"),
        ("sent Bearer xyz to them", "sent Bearer *** to them"),
        ("sent bearer a1b2c3 to them", "sent bearer *** to them"),
        ("at postgresql://me:s3:cr@t@db:5432/shop", "at postgresql://me:***@db:5432/shop"),
        ("redis://:abc@host/0 and amqp://u:p@h", "redis://:***@host/0 and amqp://u:***@h"),
        ("key AKIAIOSFODNN7EXAMPLE.", "key ***."),
        (f"got ghp_{'a1' * 18}, sk-proj-{'b2' * 12}", "got ***, ***"),
        (f"({JWT})", "(***)"),
        (
            f"a\n{PEM}\nb",
            "a\n-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nb",
        ),
        (repr(PEM), "'-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----'"),
        (PEM[:54], "-----BEGIN RSA PRIVATE KEY-----***"),
        (f"{PEM} {PEM[:54]}", f"{redact(PEM)} -----BEGIN RSA PRIVATE KEY-----***"),
    ],
)
def test_the_value_of_a_secret_is_hidden(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KeyError: 'password'",
        "wrong password for bob",
        "password=None, token=null, secret: True",
        "password: str | None",
        "password=",
        "password: \nnext",
        "max_tokens=512, token_count: 7, token_url=http://h, PASSWORD_FILE=/run/pw",
        "Token::Kind and std::secret::x",
        "the secretary=bob, tokenizer=fast, keyboard=de",
        "a bearer token is missing; Bearer authentication failed; Bearer of bad news",
        "http://host:80/@scope/p?x=a@b and mailto:me@host and http://me@host",
        "task-abcdefghijklmnop disk-usage-of-the-host sk-learn-is-a-long-name",
        "eyJ is no token, nor is eyJhbGci.x",
        "-----BEGIN PRIVATE KEY----- was not found in the file",
        "-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEA75\n-----END CERTIFICATE-----",
        'Traceback (most recent call last):\n  File "a.py", line 3, in send\n    x = {"a": 1}[key]\n',
        "x == y, a: b, 'c': 'd', 12:30:45, C:\\temp, λ=5",
        '{"secret": {"a": 1}, "token": [1]}',
    ],
)
def test_everything_else_is_left_alone(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("password", "passwd", "db_password", "PGPASSWORD", "passphrase", "pwd")),
        *((name, True) for name in ("secret", "clientSecret", "SECRET_KEY", "secret_id", "credentials")),
        *((name, True) for name in ("token", "accessToken", "authtoken", "X-Auth-Token", "session_cookie")),
        *((name, True) for name in ("api_key", "apikey", "apiKey", "X-Api-Key", "access_key", "privateKey")),
        *((name, True) for name in ("authorization", "Proxy-Authorization", "password_hash")),
        *((name, False) for name in ("", "key", "user", "tokens", "max_tokens", "tokenizer", "secretary")),
        *((name, False) for name in ("token_count", "tokenUrl", "password_length", "PASSWORD_FILE")),
        *((name, False) for name in ("primary_key", "passenger", "author", "compass", "cookies")),
    ],
)
def test_a_name_of_a_secret_is_known(name, is_secret):
    assert is_secret_name(name) is is_secret


PIECES = [
    *("password", "token", "secret", "cookie", "Authorization", "Bearer", "basic", "x", "n1", "str", "None"),
    *("=", ":", "==", "=>", " ", "\n", ",", ", ", ";", "&", "'", '"', '"""', "\\", '\\"', "\\n", "***", "-"),
    *("(", ")", "[", "]", "{", "}", "<", ">", "://", "@", "/", ".", "|", "_", "é"),
    *("AKIAIOSFODNN7EXAMPLE", "sk-1234567890123456", "eyJ", JWT, "A" * 20),
    *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_to_redact_twice_changes_nothing_more(text):
    once = redact(text)
    assert redact(once) == once


@settings(max_examples=200, deadline=None)
@given(
    before=st.text(max_size=20),
    name=st.sampled_from(["password", "api_key", "clientSecret", "auth-token"]),
    form=st.sampled_from([" {}={} ", ' "{}": "{}" ', " {}: {}\n", " '{}': '{}'"]),
    secret=st.from_regex(r"zQ[A-Za-z0-9!$%*+/._~^-]{4,30}zQ", fullmatch=True),
    after=st.text(max_size=20),
)
def test_no_form_lets_the_secret_through(before, name, form, secret, after):
    assert secret not in redact(before + form.format(name, secret) + after)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "\\",
        '"',
        "'",
        ",",
        "-",
        "a=",
        "a:",
        "password",
        "password=",
        "password: ",
        "password='",
        'password="\\',
        "password='''",
        "password=,",
        f"password=,{'a' * 64}",
        "password=(",
        "Authorization: ",
        "://",
        "://a:",
        "://a:b@",
        "Bearer ",
        "bearer a",
        "sk-",
        "sk-a.",
        "eyJ",
        f"eyJ{'a' * 8}.",
        "ghp_a",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n",
        "-----END PRIVATE KEY----- -----BEGIN PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----{'a' * 20}",
        "token",
        "password1-",
        f"{'a' * 200}token=",
        "pwd=1 ",
        "key=",
    ],
)
def test_eight_times_as_much_takes_about_eight_times_as_long(piece):
    small, large = (piece * (size // len(piece)) for size in (2**15, 2**18))
    # The least of several runs: others on the machine slow some down.
    limit = 24 * min(cpu_s(small) for _ in range(9))  # linear time gives 8, quadratic 64
    assert any(cpu_s(large) < limit for _ in range(3))


def cpu_s(text: str) -> float:
    """Return the CPU time that it takes to redact a text, in seconds."""
    begun = time.process_time()
    redact(text)
    return time.process_time() - begun
