"""What a private RabbitMQ node is told: files, environment and questions in Erlang."""

import json

EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
"""Permissions."""

DEFINITIONS = {
    "users": [{"name": "tb", "password": "tb", "tags": ["administrator"], "limits": {}}],
    "vhosts": [{"name": "tb"}],
    "permissions": [{"user": "tb", "vhost": "tb", **EVERYTHING}],
}

PLUGINS = ("rabbitmq_management", "rabbitmq_consistent_hash_exchange")

# Erlang expressions in which VHOST stands for the name of a virtual host, a binary.

# Asked of the queue's own process: the tables that RabbitMQ's own listings read are up to five seconds old.
QUEUES = """
[maps:merge(
    maps:from_list(
        [{K, case V of {resource, _, _, N} -> N; '' -> false; [{_, _, _} | _] -> rabbit_misc:amqp_table(V); [] -> #{}; _ -> V end}
         || {K, V} <- rabbit_amqqueue:info(Q, [name, type, durable, exclusive, auto_delete, arguments, state, consumers,
                                               messages, messages_ready, messages_unacknowledged])]),
    case Up andalso amqqueue:get_type(Q) of
        rabbit_classic_queue -> #{};
        rabbit_quorum_queue ->
            case catch ra:leader_query(amqqueue:get_pid(Q), fun(S) ->
                {rabbit_fifo:query_messages_ready(S), rabbit_fifo:query_messages_total(S), rabbit_fifo:query_consumer_count(S)} end, 2000)
            of
                {ok, {_, {Ready, Total, Consumers}}, _} ->
                    #{messages => Total, messages_ready => Ready, messages_unacknowledged => Total - Ready, consumers => Consumers};
                _ -> #{state => down}
            end;
        rabbit_stream_queue ->
            case maps:find({osiris_writer, amqqueue:get_name(Q)}, osiris_counters:overview()) of
                {ok, #{first_offset := First, committed_offset := Last}} -> #{messages => max(0, Last - First + 1)};
                _ -> #{state => down}
            end;
        false -> #{state => down}
    end)
 || {Up, Q} <- [{true, Q} || Q <- rabbit_amqqueue:list(VHOST)] ++ [{false, Q} || Q <- rabbit_amqqueue:list_down(VHOST)]]
"""

CONSUMERS = """
[#{queue => Queue, tag => Tag, exclusive => Exclusive, ack_required => AckRequired, prefetch_count => Prefetch,
   active => Active, activity_status => Status, arguments => rabbit_misc:amqp_table(Arguments)}
 || {{{resource, Host, queue, Queue}, _, Tag}, Exclusive, AckRequired, Prefetch, Active, Status, Arguments}
        <- ets:tab2list(consumer_created), Host =:= VHOST]
"""


def config(directory, port, management_port):
    """The lines of rabbitmq.conf."""
    return {
        "listeners.tcp.1": f"127.0.0.1:{port}",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": management_port,
        "load_definitions": directory / "definitions.json",
        "loopback_users": "none",
        "log.console": "true",
        "log.console.use_colors": "off",
        "log.file": "false",
        "disk_free_limit.absolute": "50MB",
    }


def tls(port, authority, key, chain, *, mutual):
    """The lines of rabbitmq.conf for a TLS listener that checks the certificates of clients."""
    return {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": authority,
        "ssl_options.certfile": chain,
        "ssl_options.keyfile": key,
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true" if mutual else "false",
    }


def write(directory, lines, plugins):
    """Write the node's files."""
    (directory / "log").mkdir()
    (directory / "mnesia").mkdir()
    (directory / "rabbitmq-env.conf").touch()  # or the system's would be read
    (directory / "enabled_plugins").write_text(f"[{','.join((*PLUGINS, *plugins))}].\n")
    (directory / "definitions.json").write_text(json.dumps(DEFINITIONS))
    (directory / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))


def variables(directory, node, port, dist, epmd, ctl):
    """The environment of the node and of its commands.

    Args:
        directory: The node's; as HOME it keeps the cookie.
        node: Its Erlang name.
        port: Where it listens for AMQP.
        dist: Where it listens for other Erlang nodes.
        epmd: Where its port mapper listens.
        ctl: Ports for commands, which are nodes too.
    """
    return {
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_CTL_DIST_PORT_MIN": str(min(ctl)),
        "RABBITMQ_CTL_DIST_PORT_MAX": str(max(ctl)),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        # One thread that does not spin while it waits; other nodes are spoken to on loopback only.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        # Makes the script become the Erlang VM, where it would else stay as its parent: signals go to the VM.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
