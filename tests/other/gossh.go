// gossh PORT HOSTKEY AUTHORIZED - a server of Go's x/crypto/ssh: commands, -L, -D,
// -W and -R.
package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/crypto/ssh"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func join(ch ssh.Channel, c net.Conn) {
	done := make(chan bool)
	go func() {
		io.Copy(ch, c)
		ch.CloseWrite()
		done <- true
	}()
	io.Copy(c, ch)
	c.(*net.TCPConn).CloseWrite()
	<-done
	ch.Close()
	c.Close()
}

func session(ch ssh.Channel, requests <-chan *ssh.Request) {
	for r := range requests {
		if r.Type != "exec" {
			r.Reply(r.Type == "env", nil)
			continue
		}
		var m struct{ Command string }
		ssh.Unmarshal(r.Payload, &m)
		r.Reply(true, nil)
		cmd := exec.Command("/bin/sh", "-c", m.Command)
		in, _ := cmd.StdinPipe()
		cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
		go func() {
			io.Copy(in, ch)
			in.Close()
		}()
		go func() {
			status := uint32(0)
			var e *exec.ExitError
			if errors.As(cmd.Run(), &e) {
				status = uint32(e.ExitCode())
			}
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			ch.Close()
		}()
	}
}

type address struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

func open(n ssh.NewChannel) {
	switch n.ChannelType() {
	case "session":
		ch, requests, err := n.Accept()
		if err == nil {
			session(ch, requests)
		}
	case "direct-tcpip":
		var to address
		ssh.Unmarshal(n.ExtraData(), &to)
		c, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
		if err != nil {
			n.Reject(ssh.ConnectionFailed, err.Error())
			return
		}
		ch, requests, err := n.Accept()
		if err == nil {
			go ssh.DiscardRequests(requests)
			join(ch, c)
		}
	default:
		n.Reject(ssh.UnknownChannelType, "no such channel")
	}
}

func forward(conn *ssh.ServerConn, l net.Listener, host string, port uint32) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		ch, requests, err := conn.OpenChannel("forwarded-tcpip", ssh.Marshal(address{host, port, "127.0.0.1", 1}))
		if err == nil {
			go ssh.DiscardRequests(requests)
			go join(ch, c)
		}
	}
}

func serve(c net.Conn, config *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			var m struct {
				Host string
				Port uint32
			}
			ssh.Unmarshal(r.Payload, &m)
			var l net.Listener
			err := error(nil)
			if r.Type == "tcpip-forward" {
				l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(int(m.Port)))
			}
			if l == nil || err != nil {
				r.Reply(r.Type == "cancel-tcpip-forward", nil)
				continue
			}
			m.Port = uint32(l.Addr().(*net.TCPAddr).Port)
			r.Reply(true, ssh.Marshal(struct{ Port uint32 }{m.Port}))
			go forward(conn, l, m.Host, m.Port)
		}
	}()
	for n := range channels {
		go open(n)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[2])
	check(err)
	key, err := ssh.ParsePrivateKey(text)
	check(err)
	text, err = os.ReadFile(os.Args[3])
	check(err)
	allowed, _, _, _, err := ssh.ParseAuthorizedKey(text)
	check(err)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), allowed.Marshal()) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	config.RekeyThreshold, _ = strconv.ParseUint(os.Getenv("REKEY_BYTES"), 10, 64)
	config.AddHostKey(key)
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	check(err)
	for {
		c, err := l.Accept()
		check(err)
		go serve(c, config)
	}
}
