#!/usr/bin/env escript
%% erlang.escript PORT DIRECTORY - Erlang's ssh: commands (their output, at their end),
%% SFTP, forwards.  DIRECTORY has ssh_host_ed25519_key and authorized_keys.
main([Port, Dir]) ->
    {ok, _} = application:ensure_all_started(ssh),
    Run = fun(Command) -> {ok, os:cmd(Command)} end,
    {ok, _} = ssh:daemon({127, 0, 0, 1}, list_to_integer(Port), [
        {system_dir, Dir}, {user_dir, Dir}, {exec, {direct, Run}},
        {tcpip_tunnel_in, true}, {tcpip_tunnel_out, true},
        {subsystems, [ssh_sftpd:subsystem_spec([])]}]),
    receive stop -> ok end.
