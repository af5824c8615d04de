import ast
import re
from pathlib import Path

import msgspec

from jobsched.config import (
    BalancerConfig,
    CategoryConfig,
    Config,
    HttpConfig,
    PressureConfig,
    RetentionConfig,
    parse_config,
)
from jobsched.rate import Rate
from jobsched.template import CATEGORIES_TOML, TASKS_PY

HERE = Path("/srv/shop")


def decorated_functions() -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.parse(TASKS_PY).body if isinstance(node, functions) and node.decorator_list]


def test_the_configuration_is_a_good_one():
    config = parse_config(CATEGORIES_TOML, HERE)
    assert (config.store.kind, config.store.path) == ("lmdb", HERE / ".jobsched")
    assert (config.workers, config.tasks) == (4, ("tasks",))
    assert config.category("mail").priority == 5
    assert config.category("mail").min_workers == 1
    assert config.category("reports") == CategoryConfig()


def test_the_settings_in_comments_are_the_defaults():
    uncommented, count = re.subn(r"^#(?=[\[a-z])", "", CATEGORIES_TOML, flags=re.MULTILINE)
    assert count == 16
    assert parse_config(uncommented, HERE) == parse_config(CATEGORIES_TOML, HERE)


def test_the_limits_in_comments_can_be_uncommented():
    uncommented, count = re.subn(r"^# ?(?=\[|[a-z_]+ = )", "", CATEGORIES_TOML, flags=re.MULTILINE)
    config = parse_config(uncommented, HERE)
    assert count == 32
    assert config.pressure == PressureConfig(max_cpu=95, max_memory=90)
    assert config.http == HttpConfig(allow=("10.1.0.0/16", "hooks.internal"))
    assert config.category("mail").rate == Rate(100, 60)
    assert None not in msgspec.structs.astuple(config.category("mail"))
    assert config.schedules["nightly"].schedule.trigger == ["cron", "30 2 * * *", "Europe/Berlin", False]


def test_every_setting_is_shown():
    settings = {
        *re.findall(r"^(?:# ?)?([a-z_]+) = ", CATEGORIES_TOML, flags=re.MULTILINE),
        *re.findall(r"^(?:# ?)?\[([a-z]+)", CATEGORIES_TOML, flags=re.MULTILINE),
    }
    values = (Config, CategoryConfig, BalancerConfig, RetentionConfig, PressureConfig, HttpConfig)
    fields = {name for kind in values for name in kind.__struct_fields__} - {"path", "directory"}
    example = {"task", "category", "cron", "timezone", "args"}
    assert settings == example | {name.removesuffix("_s").removesuffix("_bytes") for name in fields}


def test_the_module_compiles():
    compile(TASKS_PY, "tasks.py", "exec", dont_inherit=True)


def test_the_module_has_three_tasks_one_of_them_a_coroutine():
    functions = decorated_functions()
    assert len(functions) == 3
    assert sum(isinstance(function, ast.AsyncFunctionDef) for function in functions) == 1
    assert all(ast.get_docstring(function) and function.returns for function in functions)


def test_the_tasks_use_only_categories_of_the_configuration():
    used = re.findall(r'@task\(category="([a-z]+)"', TASKS_PY)
    assert len(used) == 3
    assert {*used} == {*parse_config(CATEGORIES_TOML, HERE).categories}
