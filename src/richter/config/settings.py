"""The settings: their names, types, limits and defaults."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

DEFAULT_PRICE_DECIMALS = 8
ADVANCED_URL = "wss://advanced-trade-ws.coinbase.com"
EXCHANGE_URL = "wss://ws-feed.exchange.coinbase.com"
SECRET = {"secret": True}  # Of a setting that is never shown.

ProductId = Annotated[str, Meta(pattern=r"^[A-Z0-9]+(-[A-Z0-9]+)+\Z")]
Decimals = Annotated[int, Meta(ge=0, le=12)]
Positive = Annotated[float, Meta(gt=0)]
Copies = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+\Z")]
Address = Annotated[str, Meta(pattern=r"^[^:]*:[0-9]+\Z")]


class Settings(Struct, frozen=True, kw_only=True):
    """One value for every setting, checked.

    The title of a field's `Meta` completes "expected …"; the description says what the setting does.
    """

    # What is watched, and where it goes
    data_dir: Annotated[
        Path, Meta(title="a folder", description="Recordings, features, models and alerts are kept here.")
    ] = Path("data")
    products: Annotated[
        tuple[ProductId, ...],
        Meta(min_length=1, title="products such as BTC-USD, at least one", description="Products to watch."),
    ] = ("BTC-USD",)
    stale_after_s: Annotated[
        float,
        Meta(ge=1, le=60, title="seconds from 1 to 60", description="How long a quote counts as known."),
    ] = 10.0
    price_decimals: Annotated[
        dict[ProductId, Decimals],
        Meta(
            title="0 to 12 decimals per product, such as BTC-USD=2",
            description=f"Decimals of a product's prices; {DEFAULT_PRICE_DECIMALS} where it is not named.",
        ),
    ] = field(default_factory=dict)

    # Addresses
    coinbase_ws_url: Annotated[
        str, Meta(pattern="^wss?://.", title="a ws:// or wss:// address", description="The exchange's feed.")
    ] = ADVANCED_URL
    coinbase_feed: Annotated[
        Literal["advanced", "exchange"],
        Meta(title="advanced or exchange", description="Which of Coinbase's protocols the feed speaks."),
    ] = "advanced"
    heartbeat_timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=30,
            title="seconds from 1 to 30",
            description="Without a byte or a heartbeat for so long the feed connects anew.",
        ),
    ] = 5.0
    kafka_bootstrap_servers: Annotated[
        str, Meta(min_length=1, title="host:port, or several with commas", description="The Kafka brokers.")
    ] = "localhost:9092"
    mlflow_tracking_uri: Annotated[
        str | None,
        Meta(
            title="an address such as http://localhost:5001, or null",
            description="MLflow's store; null is mlflow.db in the data folder.",
        ),
    ] = None

    # The brokers
    kafka_security_protocol: Annotated[
        Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
        Meta(
            title="plaintext, ssl, sasl_plaintext or sasl_ssl",
            description="How the Kafka brokers are spoken to.",
        ),
    ] = "plaintext"
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(
            title="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            description="How the user is proved to the brokers.",
        ),
    ] = "SCRAM-SHA-512"
    kafka_sasl_username: Annotated[
        str | None, Meta(title="a name, or null", description="The user at the brokers.")
    ] = None
    kafka_sasl_password: Annotated[
        str | None, Meta(title="a password, or null", description="The user's password.", extra=SECRET)
    ] = None
    kafka_ssl_ca: Annotated[
        Path | None,
        Meta(
            title="a PEM file, or null",
            description="Who has signed the brokers' certificates; null trusts whom this machine trusts.",
        ),
    ] = None
    kafka_ssl_certificate: Annotated[
        Path | None,
        Meta(title="a PEM file, or null", description="Our own certificate, where brokers want one."),
    ] = None
    kafka_ssl_key: Annotated[
        Path | None, Meta(title="a PEM file, or null", description="The key of our certificate.")
    ] = None
    kafka_ssl_key_password: Annotated[
        str | None, Meta(title="a password, or null", description="Opens the key.", extra=SECRET)
    ] = None
    kafka_topic_prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]*\Z",
            max_length=100,
            title="letters, digits, dots and dashes",
            description="Stands before the names of topics and consumer groups, on a cluster shared with others.",
        ),
    ] = ""
    kafka_partitions: Annotated[
        int,
        Meta(ge=1, le=1000, title="1 to 1000", description="Partitions of topics that richter creates."),
    ] = 3
    kafka_replication: Annotated[
        Copies | None,
        Meta(
            title="copies of a topic, or null",
            description="Copies of topics that richter creates; null is 3 where there are so many brokers, else 1.",
        ),
    ] = None
    kafka_retention_hours: Annotated[
        Positive,
        Meta(title="hours above 0", description="How long topics that richter creates keep their records."),
    ] = 168.0
    kafka_instance: Annotated[
        Name | None,
        Meta(
            title="letters, digits, dots and dashes, or null",
            description="This process's place in its group, kept over restarts; null is the host's name and a number.",
        ),
    ] = None

    metrics: Annotated[
        Address | None,
        Meta(
            title="host:port, or null",
            description="Where ingest and featurize offer their figures to Prometheus; null is nowhere.",
        ),
    ] = None

    # The recording and what is kept of it
    rotate_minutes: Annotated[
        Positive, Meta(title="minutes above 0", description="A recording's segment is closed at this age.")
    ] = 60.0
    rotate_mib: Annotated[
        Positive, Meta(title="MiB above 0", description="A recording's segment is closed at this size.")
    ] = 128.0
    compress: Annotated[
        bool, Meta(title="true or false", description="Compress closed segments (.ndjson.zst).")
    ] = False
    retention_days: Annotated[
        Positive | None,
        Meta(
            title="days above 0, or null",
            description="Recordings and features are deleted at this age; null keeps them.",
        ),
    ] = None
    max_gb: Annotated[
        Positive | None,
        Meta(
            title="GB above 0, or null",
            description="Above this the oldest recordings and features are deleted; null keeps them.",
        ),
    ] = None
    min_free_gib: Annotated[
        float,
        Meta(
            ge=0,
            title="GiB, 0 or more",
            description="With less than this left on the disk, recording pauses, loudly, until there is room.",
        ),
    ] = 1.0

    # Alerts, on the ratio of predicted volatility to its threshold
    alert_on: Annotated[
        Positive, Meta(title="a ratio above 0", description="An alert begins when the ratio reaches this.")
    ] = 1.0
    alert_off: Annotated[
        Positive,
        Meta(
            title="a ratio above 0, at most alert_on",
            description="An alert ends when the ratio falls below this.",
        ),
    ] = 0.8
    alert_cooldown_s: Annotated[
        int,
        Meta(
            ge=0,
            title="whole seconds, 0 or more",
            description="The least time between an alert's beginning and the next one's.",
        ),
    ] = 60
    alert_budget_per_hour: Annotated[
        int,
        Meta(
            ge=1,
            title="alerts per hour, 1 or more",
            description="Alerts per hour and product in the long run; saved up for an hour at most.",
        ),
    ] = 6

    # Logs
    log_format: Annotated[
        Literal["auto", "human", "json"],
        Meta(title="auto, human or json", description="auto is human on a terminal, else json."),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(title="debug, info, warning or error", description="The least severe lines that are logged."),
    ] = "info"

    @property
    def feed_url(self) -> str:
        """The feed's address; that of the Exchange feed where only the protocol was chosen."""
        if self.coinbase_feed == "exchange" and self.coinbase_ws_url == ADVANCED_URL:
            return EXCHANGE_URL
        return self.coinbase_ws_url

    @property
    def tracking_uri(self) -> str:
        """MLflow's store, with the default filled in."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.data_dir}/mlflow.db"

    def decimals_for(self, product_id: str) -> int:
        """How many decimals this product's prices are scaled by."""
        return self.price_decimals.get(product_id, DEFAULT_PRICE_DECIMALS)
