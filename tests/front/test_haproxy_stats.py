from jigsaw_triton.front.haproxy_stats import ServerState, parse_servers

TEXT = """\
# pxname,svname,scur,stot,status,weight,check_status,last_chk,
http.traffic,cell1,2,17,UP,256,* L7OK,,
http.traffic,cell2,0,3,DOWN 1/2,128,L4CON,Connection refused,
http.traffic,cell2.standby,0,0,DRAIN,0,L7OK,,
grpc.traffic,cell1,0,5,no check,256,,,
http.faces,cell1,0,0,MAINT (resolution),256,,,

"""


def test_the_states_of_servers_are_read() -> None:
    assert parse_servers(TEXT) == {
        ("http.traffic", "cell1"): ServerState(True, 256, 17, 2),
        ("http.traffic", "cell2"): ServerState(False, 128, 3, 0, "L4CON Connection refused"),
        ("http.traffic", "cell2.standby"): ServerState(True, 0, 0, 0),
        ("grpc.traffic", "cell1"): ServerState(True, 256, 5, 0),
        ("http.faces", "cell1"): ServerState(False, 256, 0, 0, "MAINT (resolution)"),
    }
