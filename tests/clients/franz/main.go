// The franz-go client of the matrix: `matrix BOOTSTRAP PREFIX [CASE...]` or
// `matrix traffic BOOTSTRAP TOPIC SECONDS [GRACE]`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const caseLimit = 90 * time.Second

// facts are what must be the same directly and through a proxy.
type facts map[string]any

type matrixCase struct {
	name string
	run  func(context.Context, facts) error
}

type matrix struct {
	bootstrap, prefix string
	cases             []matrixCase
}

func (m *matrix) add(name string, run func(context.Context, facts) error) {
	m.cases = append(m.cases, matrixCase{name, run})
}

// client has stock settings: nothing in them knows of a proxy.
func (m *matrix) client(options ...kgo.Opt) *kgo.Client {
	stock := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(m.bootstrap, ",")...),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}
	client, err := kgo.NewClient(append(append(stock, security()...), options...)...)
	if err != nil {
		panic(err)
	}
	return client
}

func (m *matrix) admin() *kadm.Client { return kadm.NewClient(m.client()) }

// topic creates a topic of this run, waits until its leaders answer, and gives its full name.
func (m *matrix) topic(ctx context.Context, name string, partitions int32, config ...string) (string, error) {
	admin := m.admin()
	defer admin.Close()
	configs := map[string]*string{}
	for at := 0; at < len(config); at += 2 {
		configs[config[at]] = &config[at+1]
	}
	name = m.prefix + name
	if _, err := admin.CreateTopic(ctx, partitions, 1, configs, name); err != nil {
		return name, err
	}
	for i := 0; i < 50; i++ {
		ends, err := admin.ListEndOffsets(ctx, name)
		if err == nil && ends.Error() == nil && len(ends[name]) == int(partitions) {
			return name, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return name, fmt.Errorf("%s has no leaders", name)
}

// errorOf is the broker's error by its protocol name, or `none`.
func errorOf(err error) string {
	var refused *kerr.Error
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &refused):
		return refused.Message
	default:
		return err.Error()
	}
}

// until asks again for up to ten seconds: metadata follows an admin call a moment later.
func until(want string, attempt func() string) string {
	got := attempt()
	for i := 0; i < 100 && got != want; i++ {
		time.Sleep(100 * time.Millisecond)
		got = attempt()
	}
	return got
}

func say(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func wanted(name string, words []string) bool {
	for _, word := range words {
		if name == word || strings.HasPrefix(name, word+"/") {
			return true
		}
	}
	return len(words) == 0
}

func (m *matrix) run(words []string) {
	for _, c := range m.cases {
		if !wanted(c.name, words) {
			continue
		}
		start, noted := time.Now(), facts{}
		ctx, cancel := context.WithTimeout(context.Background(), caseLimit)
		err := c.run(ctx, noted)
		cancel()
		line := map[string]any{"case": c.name, "ok": err == nil, "detail": noted,
			"ms": time.Since(start).Milliseconds()}
		if err != nil {
			line["error"] = err.Error()
		}
		say(line)
	}
}

func main() {
	words := os.Args[1:]
	if words[0] == "traffic" {
		seconds, _ := strconv.Atoi(words[3])
		grace := 45
		if len(words) > 4 {
			grace, _ = strconv.Atoi(words[4])
		}
		traffic(words[1], words[2], time.Duration(seconds)*time.Second, time.Duration(grace)*time.Second)
		return
	}
	m := &matrix{bootstrap: words[0], prefix: words[1]}
	m.admins()
	m.produces()
	m.groups()
	m.transactions()
	m.run(words[2:])
}
